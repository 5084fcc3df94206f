"""What both DAGs share. Parsed with them, so it imports Airflow and the settings only."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any, TypeAlias

from airflow.sdk import (
    Asset,
    AssetAlias,
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

from ...core import ending
from ...core.errors import PipelineError
from ...core.settings import load_settings
from ...interface import load_steps
from ...stages import run_stage
from ..runs import arrived, graph_settings, key_of_run, timed_out

# A stage's reference as JSON, or the promise of one while a graph is wired.
Reference: TypeAlias = Any

# Airflow's own handler of SIGTERM lets a Python task go on until it is killed.
ending.over_handlers = True
SETTINGS = graph_settings()
LIMITS, SCHEDULE = SETTINGS.limits, SETTINGS.schedule
SLUG = SETTINGS.project.slug
# Airflow passes the package's log lines on, from this level.
logging.getLogger(__name__.partition(".")[0]).setLevel(SETTINGS.logging.level)
# Emitted when a new champion is promoted; other teams' DAGs may be scheduled on it.
CHAMPION = Asset(f"{SLUG}-champion")
# A task emits what it has an alias for only when it says so, not whenever it succeeds.
NEW_CHAMPION = AssetAlias(f"{SLUG}-new-champion")
# Emitted by monitoring when drift or live performance asks for a new model.
RETRAINING = Asset(f"{SLUG}-retraining")


def schedule(pipeline: str, *assets: Asset) -> Any:
    """Return a DAG's schedule: its cron expression from the configuration, or an asset's event."""
    cron = getattr(SCHEDULE, pipeline)
    if not cron:
        return list(assets) or None
    # With data intervals each run has its own partitions, so catch-up and backfill work.
    timetable = CronDataIntervalTimetable(cron, timezone=SCHEDULE.time_zone)
    return AssetOrTimeSchedule(timetable=timetable, assets=list(assets)) if assets else timetable


def alert_failure(context: Any) -> None:
    """Alert the team to a failed task, after its last try."""
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
    "owner": SETTINGS.project.owner,
    "retries": LIMITS.retries,
    "retry_delay": timedelta(seconds=LIMITS.retry_delay_seconds),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=10),
    # Bad data or a bad setting stays bad: report it at once.
    "retry_policy": ExceptionRetryPolicy(
        rules=[RetryRule(exception=PipelineError, action=RetryAction.FAIL)]
    ),
    "execution_timeout": timedelta(minutes=LIMITS.stage_timeout_minutes),
    # On tasks, not on the DAG: a DAG-level callback is lost in some executors.
    "on_failure_callback": alert_failure,
}

# A day is picked from a calendar, anything else is typed.
DAY_PICKER: dict[str, Any] = {"format": "date"} if SETTINGS.data.unit == "day" else {}

# What both DAGs have in common.
DAG_ARGS: dict[str, Any] = {
    "start_date": SCHEDULE.begins,
    "end_date": SCHEDULE.ends,
    "catchup": SCHEDULE.catchup,
    "max_active_runs": 1,
    "default_args": DEFAULT_ARGS,
    "params": {
        "partition": Param(
            None,
            type=["null", "string"],
            title="Partition",
            description="Which one to run for. Empty: the newest one at the source.",
            **DAY_PICKER,
        )
    },
}


def wanted_partition(context: Any) -> str | None:
    """Return the partition a DAG run is about; None means the newest at the source.

    A parameter wins; a run started by monitoring takes the partition that was monitored; a
    scheduled run or a backfill takes the last one that ended within its data interval.
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
        return load_settings().data.cadence.last_ended(run.data_interval_end)
    return None


@task.sensor(
    mode="reschedule",
    poke_interval=LIMITS.wait_interval_seconds,
    timeout=60 * LIMITS.wait_timeout_minutes,
)
def wait_for_partition() -> PokeReturnValue:
    """Wait until the partition is at the source, whatever kind of storage that is."""
    found = arrived(wanted_partition(get_current_context()))
    return PokeReturnValue(is_done=found is not None, xcom_value=found)


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
    """Check every row against the data contract; rejected data ends the run."""
    return run_stage("validate", run, raw)


@task
def featurize(run: Reference, dataset: Reference) -> Reference:
    """Compute features, and target where it is known."""
    return run_stage("featurize", run, dataset)


@task
def own_step(name: str, run: Reference, references: Sequence[Reference]) -> Reference:
    """Run a step of domain/steps.py on what the stage before returned, by whichever task."""
    [reference] = [one for one in references if one is not None]
    return run_stage(name, run, reference)


def add_own_steps(
    stage: str, run: Reference, references: Sequence[Reference], then: Any, **options: Any
) -> None:
    """Put the steps of domain/steps.py that follow a stage between it and the task after it.

    Args:
        stage: The stage.
        run: The run.
        references: What the tasks return that run the stage.
        then: The task that waits for the last step.
        options: What the steps' tasks are made with.
    """
    made = [
        own_step.override(task_id=name, doc_md=function.__doc__, **options)(name, run, references)
        for name, function in load_steps().after(stage).items()
    ]
    for earlier, later in pairwise([*made, then]):
        earlier >> later


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
        if state == "failed"
    }
    return run_stage("report", run, sorted(failed))
