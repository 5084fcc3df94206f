"""Schedules: the cron expressions of [schedule]; each run takes the day before as its partition."""

from datetime import timedelta

import dagster as dg

from . import jobs
from .steps import SETTINGS, TAGS


def schedule(job: jobs.UnresolvedAssetJob, cron: str) -> dg.ScheduleDefinition:
    """Return the schedule of a job, running unless somebody stops it in the UI."""

    @dg.schedule(
        name=f"{job.name}_schedule",
        job=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        tags=TAGS,
    )
    def day_before(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        day = f"{context.scheduled_execution_time.date() - timedelta(days=1)}"
        return dg.RunRequest(run_key=day, partition_key=day)

    return day_before


CRONS = [(jobs.training, SETTINGS.schedule.training), (jobs.inference, SETTINGS.schedule.inference)]

schedules = [schedule(job, cron) for job, cron in CRONS if cron]
