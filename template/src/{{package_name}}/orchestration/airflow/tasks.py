"""What both DAGs share. Parsed with them, so it imports the standard library and Airflow only."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from airflow.sdk import (
    Asset,
    AssetOrTimeSchedule,
    CronDataIntervalTimetable,
    ExceptionRetryPolicy,
    Param,
    PokeReturnValue,
    RetryAction,
    RetryRule,
    get_current_context,
    task,
)

from ...core.errors import PipelineError
from ...stages import run_stage
from ..config import LIMITS, PROJECT, SCHEDULE
from ..runs import arrived, key_of_run, timed_out

# A stage's reference as JSON, or the promise of one while a graph is wired.
Reference: TypeAlias = Any

SLUG = PROJECT.get("slug", "pipeline")
# Emitted when a new champion is promoted; other teams' DAGs may be scheduled on it.
CHAMPION = Asset(f"{SLUG}-champion")
# Emitted by monitoring when drift or live performance asks for a new model.
RETRAINING = Asset(f"{SLUG}-retraining")


def schedule(pipeline: str, *assets: Asset) -> Any:
    """Return a DAG's schedule: its cron expression from the configuration, or an asset's event."""
    cron = SCHEDULE.get(pipeline)
    if not cron:
        return list(assets) or None
    # With data intervals each run has a day of its own, so catch-up and backfill work.
    timetable = CronDataIntervalTimetable(cron, timezone="UTC")
    return AssetOrTimeSchedule(timetable=timetable, assets=list(assets)) if assets else timetable


def alert_failure(context: Any) -> None:
    """Tell the team of a failed task, after its last try."""
    from ... import alerts

    instance = context["ti"]
    pipeline = context["dag"].dag_id.rsplit("_", 1)[-1]
    key = key_of_run(pipeline, context["dag_run"].run_id)
    if context.get("exception") is None and timed_out(key):
        return
    mapped = instance.map_index not in (None, -1)
    alerts.send_failure(
        context.get("exception") or RuntimeError("the task's process ended without an error"),
        pipeline=context["dag"].dag_id,
        stage=f"{instance.task_id}[{instance.map_index}]" if mapped else instance.task_id,
        partition=wanted_partition(context) or "newest",
        run_key=key,
        try_number=instance.try_number,
        log_url=instance.log_url,
    )


DEFAULT_ARGS = {
    "owner": PROJECT.get("owner", "ml-team"),
    "retries": LIMITS.get("retries", 2),
    "retry_delay": timedelta(seconds=LIMITS.get("retry_delay_seconds", 30)),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=10),
    # Bad data or a bad setting stays bad: report it at once.
    "retry_policy": ExceptionRetryPolicy(
        rules=[RetryRule(exception=PipelineError, action=RetryAction.FAIL)]
    ),
    "execution_timeout": timedelta(minutes=LIMITS.get("stage_timeout_minutes", 30)),
    # On tasks, not on the DAG: a DAG-level callback is lost in some executors.
    "on_failure_callback": alert_failure,
}

# What both DAGs have in common.
DAG_ARGS: dict[str, Any] = {
    "start_date": datetime.combine(
        SCHEDULE.get("start_date", datetime(2013, 1, 1)), datetime.min.time(), UTC
    ),
    "catchup": SCHEDULE.get("catchup", False),
    "max_active_runs": 1,
    "default_args": DEFAULT_ARGS,
    "params": {
        "partition": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Partition",
            description="The day to run for, like 2013-01-28. Empty: the newest one at the source.",
        )
    },
}


def wanted_partition(context: Any) -> str | None:
    """Return the day a DAG run is about; None means the newest at the source.

    A parameter wins; a run started by monitoring takes the day that was monitored; a scheduled run
    or a backfill takes the last day of its data interval.
    """
    chosen = context["params"].get("partition")
    if chosen:
        return str(chosen)
    for events in (context.get("triggering_asset_events") or {}).values():
        for event in events:
            if event.extra.get("partition"):
                return str(event.extra["partition"])
    run = context["dag_run"]
    if run.run_type in ("scheduled", "backfill") and run.data_interval_end:
        return f"{(run.data_interval_end - timedelta(days=1)).date()}"
    return None


@task.sensor(
    mode="reschedule",
    poke_interval=float(LIMITS.get("wait_interval_seconds", 60)),
    timeout=60.0 * LIMITS.get("wait_timeout_minutes", 720),
)
def wait_for_partition() -> PokeReturnValue:
    """Wait until the partition is at the source, whatever kind of storage that is."""
    day = arrived(wanted_partition(get_current_context()))
    return PokeReturnValue(is_done=day is not None, xcom_value=day)


@task
def start(pipeline: str, partition: Reference) -> Reference:
    """Open the MLflow run that records this DAG run."""
    context = get_current_context()
    key = key_of_run(pipeline, context["dag_run"].run_id)
    url = context["ti"].log_url.partition("/tasks/")[0]
    return run_stage("start", pipeline, partition, key, url)


@task
def ingest(run: Reference, window: str = "normal") -> Reference:
    """Take a snapshot of the window's partitions."""
    return run_stage("ingest", run, window)


@task
def validate(run: Reference, raw: Reference) -> Reference:
    """Hold every row against the data contract; rejected data ends the run."""
    return run_stage("validate", run, raw)


@task
def featurize(run: Reference, dataset: Reference) -> Reference:
    """Compute features, and target where it is known."""
    return run_stage("featurize", run, dataset)


@task
def report() -> Reference:
    """Write the report and close the MLflow run, also when tasks failed.

    Used as a teardown: it runs whatever happened, and its success does not hide a failed task.
    """
    instance = get_current_context()["ti"]
    run = instance.xcom_pull(task_ids="start")
    if run is None:
        return None
    run_id = get_current_context()["dag_run"].run_id
    states = instance.get_task_states(instance.dag_id, run_ids=[run_id])[run_id]
    # A task's name has its group before it, and a mapped one's number after: window.train_0.
    failed = {
        re.sub(r"_\d+$", "", task.rpartition(".")[2])
        for task, state in states.items()
        if state in ("failed", "upstream_failed")
    }
    return run_stage("report", run, sorted(failed))
