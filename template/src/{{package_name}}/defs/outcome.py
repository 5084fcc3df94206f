"""What became of a run: the alert when it failed, and what its report needs to know."""

import contextlib
from typing import Any

import dagster as dg

from .. import alerts
from ..core.errors import DataRejected
from ..orchestration.dagster.local import run_address
from ..orchestration.runs import key_of_run, timed_out
from .common import STAGES, Reference, read_reference
from .jobs import report_config

# Tag of a run of the command line, which alerts and reports itself.
ATTENDED = "attended"
PIPELINES = ("training", "inference")


def pipeline_of(run: dg.DagsterRun) -> str | None:
    """Return which pipeline a run belongs to, also when only some of its assets were selected."""
    selected = [key.path[0] for key in run.asset_selection or ()]
    return next((name for name in (run.job_name, *selected) if name in PIPELINES), None)


def stage_of(step: str) -> str:
    """Return the stage of a step, like window.ingest or window.train[linear]."""
    *prefix, asset = step.split("__")
    stage = STAGES.get(asset, f"train[{asset}]") if prefix else step
    return ".".join([*prefix[1:], stage])


def is_attended(run: dg.DagsterRun) -> bool:
    """Return whether the command line waits for a run; a re-execution inherits only the tag."""
    return ATTENDED in run.tags and run.parent_run_id is None


def failures(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[dg.EventLogEntry]:
    """Return the failures of a run's steps, the first one first."""
    return list(instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE))


def started(run: dg.DagsterRun) -> Reference:
    """Return the reference that a run began with; None when it did not come that far."""
    pipeline, partition = pipeline_of(run), run.tags.get("dagster/partition")
    if pipeline is None or partition is None:
        return None
    reference = read_reference([pipeline, "run"], partition)
    key = key_of_run(pipeline, run.root_run_id or run.run_id)
    return reference if reference and reference["key"] == key else None


def report_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dict[str, Any] | None:
    """Return the report job's run configuration for a run; None where nothing is to be reported."""
    reference = started(run)
    if reference is None:
        return None
    failed = [stage_of(entry.step_key or "").partition("[")[0] for entry in failures(instance, run)]
    return report_config(reference, sorted(set(failed)))


def alert_failure(instance: dg.DagsterInstance, run: dg.DagsterRun, message: str) -> None:
    """Tell the team of a failed run, unless a stage has at its time limit.

    Args:
        instance: Where the run is recorded.
        run: The run.
        message: What Dagster says of it, for a run that failed outside its steps.
    """
    pipeline = pipeline_of(run) or run.job_name
    key = key_of_run(pipeline, run.root_run_id or run.run_id)
    if timed_out(key):
        return
    reference, url = started(run), None
    if reference is not None:
        from ..core import tracking

        # MLflow may be what failed.
        with contextlib.suppress(Exception):
            url = tracking.run_url(reference["tracking_run_id"])
    entries = failures(instance, run)
    step = entries[0].step_key if entries else None
    restarts = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_RESTARTED)
    alerts.send(
        alerts.Event.from_exception(
            _error(entries[0]) if entries else message,
            pipeline=pipeline,
            stage=stage_of(step) if step else None,
            partition=run.tags.get("dagster/partition"),
            run_key=key,
            try_number=1 + sum(entry.step_key == step for entry in restarts) if step else None,
            log_url=run_address(run.run_id, step),
            tracking_url=url,
        )
    )


def _error(entry: dg.EventLogEntry) -> BaseException | str:
    failure = entry.get_dagster_event().step_failure_data
    told = failure.user_failure_data
    if told is not None:
        facts: dict[str, Any] = {name: value.value for name, value in told.metadata.items()}
        if "problems" in facts:
            return DataRejected(facts["partition"], facts["problems"], facts["report"])
        return told.description or told.label
    error = failure.error
    while error is not None and error.cause is not None:
        error = error.cause
    if error is None or error.cls_name == "ChildProcessCrashException":
        return "the step's process ended without an error"
    return error.message.strip()
