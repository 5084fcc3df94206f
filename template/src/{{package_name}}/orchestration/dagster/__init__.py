"""The pipelines on Dagster."""
