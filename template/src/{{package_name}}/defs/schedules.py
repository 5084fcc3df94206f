"""Schedules: the cron expressions of [schedule]; each run takes the partition that ended last."""

import dagster as dg

from . import jobs
from .partitions import CADENCE, PARTITIONS, key_of
from .stage_assets import SETTINGS, TAGS


def schedule(job: jobs.UnresolvedAssetJob, cron: str) -> dg.ScheduleDefinition:
    """Return the schedule of a job, running unless somebody stops it in the UI."""

    @dg.schedule(
        name=f"{job.name}_schedule",
        job=job,
        cron_schedule=cron,
        execution_timezone=SETTINGS.schedule.time_zone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        tags=TAGS,
    )
    def last_ended(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        time, ends = context.scheduled_execution_time, SETTINGS.schedule.ends
        key = key_of(CADENCE.last_ended(time))
        if (ends and time > ends) or not PARTITIONS.has_partition_key(key):
            return dg.SkipReason("not between start_date and end_date of [schedule]")
        return dg.RunRequest(run_key=time.isoformat(), partition_key=key)

    return last_ended


CRONS = [(jobs.training, SETTINGS.schedule.training), (jobs.inference, SETTINGS.schedule.inference)]

schedules = [schedule(job, cron) for job, cron in CRONS if cron]
