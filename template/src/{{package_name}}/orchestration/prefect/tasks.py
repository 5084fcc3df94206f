"""What both flows share. Imported with them, so it imports Prefect and the settings only."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from prefect import Flow, Task, get_client, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run as this_run
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect.tasks import exponential_backoff
from prefect.utilities.urls import url_for

from ...core import optional
from ...core.errors import PipelineError, Terminated
from ...core.settings import load_settings
from ...interface import load_steps
from ...stages import run_stage
from ..runs import arrived, graph_settings, key_of_run, timed_out

# A stage's reference as JSON.
Reference: TypeAlias = dict[str, Any]

SETTINGS = graph_settings()
LIMITS = SETTINGS.limits
SLUG = SETTINGS.project.slug
# Prefect passes the package's log lines on (PREFECT_LOGGING_EXTRA_LOGGERS), from this level.
logging.getLogger(__name__.partition(".")[0]).setLevel(SETTINGS.logging.level)
WORKER_NOTICES_WITHIN_SECONDS = 10.0
# Emitted by monitoring; prefect.yaml starts training on it.
RETRAINING = "pipeline.retraining-requested"


def may_help(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Return whether to try again: bad data or a bad setting stays bad."""
    return not isinstance(state.data, PipelineError)


STAGE: dict[str, Any] = {
    "retries": LIMITS.retries,
    # Prefect takes at most 50 delays.
    "retry_delay_seconds": exponential_backoff(LIMITS.retry_delay_seconds)(min(LIMITS.retries, 50)),
    "retry_condition_fn": may_help,
    "timeout_seconds": 60 * LIMITS.stage_timeout_minutes,
    "tags": [SLUG],
}
# Prefect cannot interrupt what runs in a thread: there the stage's own limit ends the process.
STAGE_IN_THREAD = STAGE | {"timeout_seconds": None}


def task_runner() -> TaskRunner[Any]:
    """Return what trains the candidates side by side: threads, or Dask where a scheduler is set."""
    address = os.environ.get("DASK_SCHEDULER_ADDRESS")
    if not address:
        return ThreadPoolTaskRunner()
    # Part of projects with distributed workers only.
    runner: TaskRunner[Any] = optional.load("orchestration.prefect.workers").dask(address)
    return runner


def wanted_partition(flow_run: FlowRun) -> str | None:
    """Return the partition a flow run is about; None means the newest at the source.

    A parameter wins; a scheduled run takes the one that ended last before its scheduled time.
    """
    chosen = flow_run.parameters.get("partition")
    if chosen:
        return str(chosen)
    if flow_run.auto_scheduled and flow_run.expected_start_time:
        return load_settings().data.cadence.last_ended(flow_run.expected_start_time)
    return None


def name_of_run() -> str:
    """Return what the UI calls the flow run."""
    return f"{this_run.flow_name} {_partition_of_this_run() or 'newest'}"


def _partition_of_this_run() -> str | None:
    context = FlowRunContext.get()
    return wanted_partition(context.flow_run) if context and context.flow_run else None


def alert_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Alert the team once to a failed run, with the task that ended it."""
    from ... import alerts

    pipeline = flow.name
    key = key_of_run(pipeline, str(flow_run.id))
    task_run = _task_that_failed(flow_run)
    alerts.send_failure(
        _error_of(state),
        pipeline=pipeline,
        stage=task_run.name if task_run else "start",
        partition=wanted_partition(flow_run) or "newest",
        run_key=key,
        try_number=task_run.run_count if task_run else flow_run.run_count,
        log_url=url_for(task_run or flow_run),
        tracking_url=_tracking_url(key),
    )


def recover_crash(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Schedule a run again whose process died; after the last try, alert the team and close it.

    Called by the worker, since the run's own process is gone. The run keeps its id, so its stages
    continue the same MLflow run. Ctrl-C on a run at the keyboard needs no alert.
    """
    key = key_of_run(flow.name, str(flow_run.id))
    if timed_out(key):
        return
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_run(flow_run.id)
    if flow_run.deployment_id and flow_run.run_count <= LIMITS.retries:
        delay = LIMITS.retry_delay_seconds * 2 ** (flow_run.run_count - 1)
        _run_again(flow_run, max(delay, WORKER_NOTICES_WITHIN_SECONDS))
        return
    error = _error_of(state)
    if not (isinstance(error, Terminated) and error.is_interactive):
        alert_failure(flow, flow_run, state)
    run = run_stage("start", flow.name, wanted_partition(flow_run), key)
    run_stage("report", run, [flow.name])


def _run_again(flow_run: FlowRun, delay: float) -> None:
    # In a separate process: once the process of this hook is gone, the worker reports the crash
    # a second time, which would undo it.
    module = f"{__package__}.local"
    subprocess.Popen(
        [sys.executable, "-m", module, "again", str(flow_run.id), f"{delay}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _error_of(state: State[Any]) -> BaseException | str | None:
    # A process that died has left no exception.
    with contextlib.suppress(Exception):
        error = state.result(raise_on_failure=False)
        if isinstance(error, BaseException) and not isinstance(error, PrefectException):
            return error
    return state.message


def _task_that_failed(flow_run: FlowRun) -> TaskRun | None:
    """Return the task that ended a run; one that still runs, when its process was killed."""
    chosen = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id]))
    with get_client(sync_client=True) as client:
        # The server learns of a task's states a moment later than of the flow's.
        for _ in range(10):
            ended = [
                task_run
                for task_run in client.read_task_runs(flow_run_filter=chosen)
                if task_run.state_type in (StateType.FAILED, StateType.CRASHED)
            ]
            if ended:
                return min(ended, key=lambda task_run: f"{task_run.end_time}")
            time.sleep(0.5)
        task_runs = client.read_task_runs(flow_run_filter=chosen)
    running = [one for one in task_runs if one.state_type == StateType.RUNNING]
    return running[-1] if running else None


def _tracking_url(key: str) -> str | None:
    from ...core.records import read_records

    # The storage may be what failed.
    with contextlib.suppress(Exception):
        for record in read_records(key):
            if record.stage == "report" and record.result:
                return str(record.result["tracking_url"])
    return None


FLOW: dict[str, Any] = {
    "flow_run_name": name_of_run,
    "task_runner": task_runner(),
    "on_failure": [alert_failure],
    "on_crashed": [recover_crash],
}


@contextmanager
def reported(run: Reference) -> Iterator[None]:
    """Write the run's report and close its MLflow run, whatever becomes of the body."""
    from ...core import stage

    at_exit = functools.partial(run_stage, "report")
    stage.before_exit.append(at_exit)
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception):
            # A signal, or Prefect's error for one, interrupts no candidate in its thread.
            known = error if isinstance(error, Terminated) else Terminated(signal.SIGTERM)
            stage.end_running(known)
        # The error that ended the run counts, not one of its report.
        with contextlib.suppress(Exception):
            report(run)
        raise
    finally:
        stage.before_exit.remove(at_exit)
    report(run)


@task(
    task_run_name="wait_for_partition",
    retries=int(60 * LIMITS.wait_timeout_minutes / LIMITS.wait_interval_seconds),
    retry_delay_seconds=LIMITS.wait_interval_seconds,
    retry_condition_fn=may_help,
    timeout_seconds=STAGE["timeout_seconds"],
    tags=[SLUG],
)
def wait_for_partition() -> str:
    """Wait until the partition is at the source; each try looks once."""
    wanted = _partition_of_this_run()
    found = arrived(wanted)
    if found is None:
        raise LookupError(f"partition {wanted} is not at the source yet")
    return found


@task(**STAGE, task_run_name="start")
def start(pipeline: str, partition: str) -> Reference:
    """Open the MLflow run that records this flow run."""
    key = key_of_run(pipeline, str(this_run.id))
    return run_stage("start", pipeline, partition, key, url_for("flow-run", this_run.id))


@task(**STAGE, task_run_name="ingest")
def ingest(run: Reference, window: str = "normal") -> Reference:
    """Take a snapshot of the window's partitions."""
    return run_stage("ingest", run, window)


@task(**STAGE, task_run_name="validate")
def validate(run: Reference, raw: Reference) -> Reference:
    """Check every row against the data contract; rejected data ends the run."""
    return run_stage("validate", run, raw)


@task(**STAGE, task_run_name="featurize")
def featurize(run: Reference, dataset: Reference) -> Reference:
    """Compute features, and target where it is known."""
    return run_stage("featurize", run, dataset)


@task(**STAGE, task_run_name="{name}")
def own_step(name: str, run: Reference, reference: Reference) -> Reference:
    """Run a step of domain/steps.py."""
    return run_stage(name, run, reference)


def take_own_steps(stage: str, run: Reference, reference: Reference) -> None:
    """Run the steps of domain/steps.py that follow a stage on what it returned."""
    for name in load_steps().after(stage):
        own_step(name, run, reference)


@task(**STAGE, task_run_name="report")
def report(run: Reference) -> Reference:
    """Write the report, close the MLflow run, and link both from the flow run's artifacts."""
    from ...core.storage import path_of

    written = run_stage("report", run)
    pipeline, url = run["pipeline"], written["tracking_url"]
    create_link_artifact(url, "MLflow run", key=f"{pipeline}-mlflow", description=run["key"])
    failed = ", ".join(written["failed_stages"])
    create_markdown_artifact(
        f"**{run['partition']}**: {f'failed in {failed}' if failed else 'every stage ended well'}\n"
        f"\n[Report]({url}/artifacts/report.html) (`{path_of(written['uri'])}`)",
        key=f"{pipeline}-report",
    )
    return written
