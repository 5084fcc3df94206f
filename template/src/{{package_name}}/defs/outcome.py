"""What became of a run: the alert when it failed, and what its report needs to know."""

from typing import Any

import dagster as dg

from .. import alerts
from ..core.errors import DataRejected
from ..core.outcomes import Violation
from ..orchestration.runs import key_of_run, timed_out
from .jobs import report_config
from .partitions import partition_of
from .resources import Reference, read_reference
from .stage_assets import REJECTION, Step
from .ui import run_address

# Tag of a run of the command line, which alerts and reports itself.
ATTENDED = "attended"
PIPELINES = ("training", "inference")


def pipeline_of(run: dg.DagsterRun) -> str | None:
    """Return which pipeline a run belongs to, also when only some of its assets were selected."""
    selected = [key.path[0] for key in run.asset_selection or ()]
    return next((name for name in (run.job_name, *selected) if name in PIPELINES), None)


def run_key_of(run: dg.DagsterRun) -> str:
    """Return the pipeline's name for a run, the same for its re-executions."""
    return key_of_run(pipeline_of(run) or run.job_name, run.root_run_id or run.run_id)


def partition_key_of(run: dg.DagsterRun) -> str | None:
    """Return what Dagster calls the partition of a run."""
    return run.tags.get("dagster/partition")


def is_attended(run: dg.DagsterRun) -> bool:
    """Return whether the command line waits for a run; a re-execution inherits only the tag."""
    return ATTENDED in run.tags and run.parent_run_id is None


def failures(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[dg.EventLogEntry]:
    """Return the failures of a run's steps, the first one first."""
    return list(instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE))


def started(run: dg.DagsterRun) -> Reference:
    """Return the reference that a run began with; None when it did not come that far."""
    pipeline, key = pipeline_of(run), partition_key_of(run)
    if pipeline is None or key is None:
        return None
    reference = read_reference([pipeline, "run"], key)
    return reference if reference and reference["key"] == run_key_of(run) else None


def report_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dict[str, Any] | None:
    """Return the report job's run configuration for a run; None where nothing is to be reported."""
    reference = started(run)
    if reference is None:
        return None
    failed = {Step.from_key(entry.step_key or "").stage for entry in failures(instance, run)}
    return report_config(reference, sorted(failed))


def alert_failure(instance: dg.DagsterInstance, run: dg.DagsterRun, message: str) -> None:
    """Alert the team to a failed run, unless a stage did so at its time limit.

    Args:
        instance: Where the run is recorded.
        run: The run.
        message: What Dagster says about it, for a run that failed outside its steps.
    """
    if timed_out(run_key_of(run)):
        return
    failed = failures(instance, run)
    error = error_of(failed[0]) if failed else message
    step = failed[0].step_key if failed else None
    key = partition_key_of(run)
    reference = started(run)
    alerts.send_failure(
        error,
        pipeline=pipeline_of(run) or run.job_name,
        stage=Step.from_key(step).label if step else None,
        partition=partition_of(key) if key else None,
        run_key=run_key_of(run),
        try_number=_tries(instance, run, step) if step else None,
        log_url=run_address(run.run_id, step),
        tracking_url=alerts.run_url(reference["tracking_run_id"] if reference else None),
    )


def error_of(entry: dg.EventLogEntry) -> BaseException | str:
    """Return what a step failed with, as far as Dagster kept it."""
    failure = entry.get_dagster_event().step_failure_data
    raised = failure.user_failure_data
    if raised is not None:
        if REJECTION in raised.metadata:
            rejected: Any = raised.metadata[REJECTION].value
            violations = [Violation.model_validate(one) for one in rejected["violations"]]
            return DataRejected(rejected["partition"], violations, rejected["report_uri"])
        return raised.description or raised.label
    error = failure.error
    while error is not None and error.cause is not None:
        error = error.cause
    if error is None or error.cls_name == "ChildProcessCrashException":
        return "the step's process ended without an error"
    return error.message.strip()


def _tries(instance: dg.DagsterInstance, run: dg.DagsterRun, step: str) -> int:
    restarts = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_RESTARTED)
    return 1 + sum(entry.step_key == step for entry in restarts)
