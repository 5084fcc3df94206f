"""Sensors: what starts runs besides schedules, and what happens when one has ended."""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from ..core.settings import load_settings
from ..sources import open_source
from . import jobs
from .assets.inference import MONITORING, RUN_KEY
from .outcome import alert_failure, is_attended, report_of
from .partitions import PARTITIONS, key_of
from .stage_assets import LIMITS, SETTINGS

RUNNING = dg.DefaultSensorStatus.RUNNING
EVENTS_A_TICK = 100


@dg.sensor(
    job=jobs.inference,
    minimum_interval_seconds=int(LIMITS.wait_interval_seconds),
    default_status=RUNNING if SETTINGS.schedule.catchup else dg.DefaultSensorStatus.STOPPED,
)
def new_partition(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Score each partition as it arrives, instead of by the clock; runs where catchup is on."""
    if (ends := SETTINGS.schedule.ends) and datetime.now(UTC) > ends:
        return dg.SkipReason(f"the schedule has ended: {ends.date()}, end_date of [schedule]")
    known = set(PARTITIONS.get_partition_keys())
    there = [one for one in open_source(load_settings()).list_partitions() if key_of(one) in known]
    # What was there before the sensor was turned on is caught up with only if asked for.
    since = context.cursor
    if since is None:
        since = "" if SETTINGS.schedule.catchup else max(there, default="")
    context.update_cursor(since)
    # Not those after the last one: a file may arrive, or become whole, after a later one.
    done = context.instance.get_materialized_partitions(RUN_KEY)
    new = [one for one in there if one > since and key_of(one) not in done]
    if not new:
        return dg.SkipReason(f"nothing new at the source since {since or 'the beginning'}")
    # Dagster starts no second run of a key: what is still running, or failed, is left alone.
    return dg.SensorResult([dg.RunRequest(run_key=one, partition_key=key_of(one)) for one in new])


@dg.sensor(job=jobs.training, minimum_interval_seconds=10, default_status=RUNNING)
def retraining(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest]:
    """Train for the partition in which monitoring found that a new model is needed."""
    since = int(context.cursor) if context.cursor else None
    monitored = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(MONITORING, after_storage_id=since),
        limit=EVENTS_A_TICK,
        ascending=True,
    )
    for record in monitored.records:
        event = record.asset_materialization
        if event is not None and event.metadata["retrain"].value:
            yield dg.RunRequest(run_key=record.run_id, partition_key=event.partition)
        context.update_cursor(f"{record.storage_id}")


def report_when(status: dg.DagsterRunStatus) -> dg.SensorDefinition:
    """Return the sensor that has every run that ends in a state reported."""

    @dg.run_status_sensor(
        run_status=status,
        name=f"report_{status.value.lower()}",
        monitored_jobs=None,
        request_job=jobs.report,
        minimum_interval_seconds=5,
        default_status=RUNNING,
    )
    def report(context: dg.RunStatusSensorContext) -> dg.RunRequest | dg.SkipReason:
        run = context.dagster_run
        config = report_of(context.instance, run)
        if run.job_name == jobs.report.name or _is_somebody_elses(run) or config is None:
            return dg.SkipReason(f"nothing to report of {run.run_id}")
        return dg.RunRequest(
            run_key=run.run_id,
            run_config=config,
            tags={"reports": run.run_id},
        )

    return report


@dg.run_failure_sensor(minimum_interval_seconds=5, default_status=RUNNING)
def alert_failed_run(context: dg.RunFailureSensorContext) -> None:
    """Alert the team once to each run that failed and will not be tried again."""
    run = context.dagster_run
    if not _is_somebody_elses(run):
        alert_failure(context.instance, run, context.failure_event.message or "")


def _is_somebody_elses(run: dg.DagsterRun) -> bool:
    return is_attended(run) or run.tags.get("dagster/will_retry") == "true"


sensors = [
    new_partition,
    retraining,
    alert_failed_run,
    *(
        report_when(status)
        for status in (
            dg.DagsterRunStatus.SUCCESS,
            dg.DagsterRunStatus.FAILURE,
            dg.DagsterRunStatus.CANCELED,
        )
    ),
]
