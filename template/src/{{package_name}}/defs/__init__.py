"""Dagster's assets, jobs, schedules and sensors."""
