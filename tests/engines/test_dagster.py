"""A Dagster project on the real thing: webserver, daemon, GraphQL, MLflow, alerts.

One server serves all tests of this module; they run in their order, as one story.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from receivers import free_port

from ..support.dagster import Dagster
from ..support.faults import FAILS_ONCE, HANGS, fault
from ..support.projects import (
    make_installed_project,
    runs_of,
    training_result,
)
from ..support.stories import (
    QUICK,
    Story,
    assert_first_champion,
    assert_recovered,
    assert_rejected,
    assert_retrained,
    assert_timed_out,
    running,
    wait_for,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass
class Stack(Story):
    """The running project with its server."""

    dagster: Dagster


@pytest.fixture(scope="module")
def stack(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run `poe up` of a Dagster project; it is stopped in the middle of a run."""
    folder = tmp_path_factory.mktemp("dagster")
    project = make_installed_project(sources, folder / "project", orchestrator="dagster")
    port = free_port()
    with running(project, QUICK, {"DAGSTER_PORT": f"{port}"}) as story:
        dagster = Dagster(f"http://127.0.0.1:{port}")
        yield Stack(project, story.slack, story.mail, dagster)
        run = dagster.launch("training", "2013-01-31")
        wait_for(lambda: dagster.events(run, "StepWorkerStartedEvent") or None, 300, "a step")
        assert len(story.family()) > 5


def test_definitions_are_there_and_what_must_run_runs(stack: Stack) -> None:
    query = """query($given: RepositorySelector!) { repositoryOrError(repositorySelector: $given) {
        ... on Repository { jobs { name description } schedules { name scheduleState { status } }
        sensors { name sensorState { status } } } } }
    """
    found = stack.dagster.ask(query, given=stack.dagster.repository)
    jobs = {job["name"]: job["description"] for job in found["jobs"]}
    sensors = {one["name"]: one["sensorState"]["status"] for one in found["sensors"]}
    [schedule] = found["schedules"]

    assert all(jobs[name] for name in ("training", "inference", "report"))
    assert schedule == {"name": "inference_schedule", "scheduleState": {"status": "RUNNING"}}
    # Scores partitions as they arrive: somebody turns it on, or catchup does.
    assert sensors.pop("new_partition") == "STOPPED"
    assert set(sensors.values()) == {"RUNNING"}


def test_training_trains_all_candidates_and_promotes_a_champion(stack: Stack) -> None:
    run = stack.dagster.launch("training", "2013-01-31")
    assert stack.dagster.result("training", run) == "SUCCESS"

    done = {event["stepKey"] for event in stack.dagster.events(run, "ExecutionStepSuccessEvent")}
    skipped = {event["stepKey"] for event in stack.dagster.events(run, "ExecutionStepSkippedEvent")}
    trained = {f"training__window__{name}" for name in ("linear", "random_forest", "xgboost")}
    assert done >= {*trained, "training__window__promotion"}
    assert "training__wider_window__evaluation" in skipped
    checks = stack.dagster.events(run, "AssetCheckEvaluationEvent")
    assert {event["evaluation"]["checkName"] for event in checks} == {"data_contract", "gates"}
    assert all(event["evaluation"]["success"] for event in checks)

    mlflow = assert_first_champion(stack)
    [parent] = runs_of(mlflow, "training")
    assert parent["tags"]["pipeline.run_key"] == f"training-{run}"
    assert parent["tags"]["pipeline.engine_url"] == f"{stack.dagster.address}/runs/{run}"
    # The engine makes no difference to the result.
    assert training_result(mlflow) == training_result(stack.project.run_alone("2013-01-31"))


def test_a_schedule_takes_the_day_before_and_backfill_runs_by_partition(stack: Stack) -> None:
    query = """mutation($given: ScheduleSelector!, $time: Float!) {
        scheduleDryRun(selectorData: $given, timestamp: $time) { ... on DryRunInstigationTick {
        evaluationResult { runRequests { tags { key value } } } } } }
    """
    given = {**stack.dagster.repository, "scheduleName": "inference_schedule"}
    # 2 February 2013, six o'clock.
    tick = stack.dagster.ask(query, given=given, time=1359784800.0)
    [request] = tick["evaluationResult"]["runRequests"]
    tags = {tag["key"]: tag["value"] for tag in request["tags"]}
    assert tags["dagster/partition"] == "2013-02-01"

    days = ["2013-02-01", "2013-02-02"]
    stack.dagster.backfill("inference", *days)
    wait_for(lambda: stack.scored(*days), 500, "two backfilled days")
    runs = stack.dagster.runs("inference")
    assert sorted(run["tags"]["dagster/partition"] for run in runs) == days
    for run in runs:
        assert stack.dagster.result("inference", run["runId"]) == "SUCCESS"


def test_dg_launch_runs_a_job_for_a_partition(stack: Stack) -> None:
    day, root = "2013-02-05", stack.project.path
    home = {"DAGSTER_HOME": str(root / "var" / "dagster")}
    stack.project.run("dg", "launch", "--job", "inference", "--partition", day, variables=home)

    [run] = stack.dagster.runs("inference", **{"dagster/partition": day})
    assert run["status"] == "SUCCESS"
    done = stack.dagster.events(run["runId"], "ExecutionStepSuccessEvent")
    assert {"inference__scores", "inference__monitoring"} <= {event["stepKey"] for event in done}
    predicted = root / "var" / "artifacts" / "predictions" / f"{day}.parquet"
    source = root / "data" / "sample" / f"{day}.parquet"
    count = (
        "import polars, sys; print(*(polars.read_parquet(name).height for name in sys.argv[1:]))"
    )
    rows = stack.project.run("python", "-c", count, str(predicted), str(source)).stdout.split()
    assert rows[0] == rows[1] != "0"


def test_bad_data_that_arrives_tells_every_channel_once(stack: Stack) -> None:
    path = stack.project.path / "data" / "sample" / "2013-02-07.parquet"
    good = path.read_bytes()
    path.unlink()
    told = stack.listen()
    before = stack.project.mlflow()
    sensor = """mutation($given: SensorSelector!) { startSensor(sensorSelector: $given) {
        __typename ... on Sensor { id sensorState { id ticks { id } } } } }
    """
    query = """query($given: SensorSelector!) { sensorOrError(sensorSelector: $given) {
        ... on Sensor { sensorState { ticks { status } } } } }
    """
    given = {**stack.dagster.repository, "sensorName": "new_partition"}
    assert stack.dagster.ask(sensor, given=given)["__typename"] == "Sensor"

    def looked() -> bool | None:
        ticks = stack.dagster.ask(query, given=given)["sensorState"]["ticks"]
        return any(tick["status"] == "SKIPPED" for tick in ticks) or None

    try:
        wait_for(looked, 300, "the sensor to look at the source")
        part = path.with_suffix(".part")
        part.write_bytes(good[: len(good) // 2])
        # Nobody waits for the rest of an old file.
        os.utime(part, (0, 0))
        part.rename(path)

        def started() -> str | None:
            runs = stack.dagster.runs("inference", **{"dagster/partition": "2013-02-07"})
            return runs[0]["runId"] if runs else None

        run = wait_for(started, 300, "a run for the partition that arrived")
        assert stack.dagster.result("inference", run) == "FAILURE"
    finally:
        path.write_bytes(good)

    [failed] = stack.dagster.events(run, "ExecutionStepFailureEvent")
    assert failed["stepKey"] == "inference__raw"
    assert stack.dagster.events(run, "ExecutionStepUpForRetryEvent") == []
    assert_rejected(told, before, "inference", "ingest", "2013-02-07")
    assert f"{stack.dagster.address}/runs/{run}" in told.slack[0]


def test_a_killed_and_a_flaky_step_are_tried_again_and_the_run_recovers(stack: Stack) -> None:
    told = stack.listen()
    with fault(stack.project, "random_forest", FAILS_ONCE):
        run = stack.dagster.launch("training", "2013-02-03")

        def process() -> psutil.Process | None:
            for event in stack.dagster.events(run, "StepWorkerStartedEvent"):
                if event["stepKey"] == "training__window__xgboost":
                    told = {entry["label"]: entry.get("text") for entry in event["metadataEntries"]}
                    return psutil.Process(int(told["pid"]))
            return None

        wait_for(process, 300, "a candidate's process").kill()
        assert stack.dagster.result("training", run) == "SUCCESS"

    again = [event["stepKey"] for event in stack.dagster.events(run, "ExecutionStepRestartEvent")]
    assert sorted(again) == ["training__window__random_forest", "training__window__xgboost"]
    assert_recovered(told)


def test_a_step_that_hangs_is_ended_at_its_limit_and_alerted_once(stack: Stack) -> None:
    told = stack.listen()
    stack.project.edit_config("stage_timeout_minutes = 30", "stage_timeout_minutes = 0.3")
    stack.project.edit_config("retries = 1", "retries = 0")
    try:
        with fault(stack.project, "linear", HANGS):
            run = stack.dagster.launch("training", "2013-02-02")
            assert stack.dagster.result("training", run) == "FAILURE"
    finally:
        stack.project.edit_config("stage_timeout_minutes = 0.3", "stage_timeout_minutes = 30")
        stack.project.edit_config("retries = 0", "retries = 1")

    [failed] = stack.dagster.events(run, "ExecutionStepFailureEvent")
    assert failed["stepKey"] == "training__window__linear"
    assert_timed_out(told, "StageTimeout", "train[linear]", "2013-02-02", f"/runs/{run}")


def test_drift_alerts_and_starts_training_for_the_same_day(stack: Stack) -> None:
    # Every run reads the settings anew: from here on any difference counts as drift.
    stack.project.edit_config("max_psi = 0.1 ", "max_psi = 1e-9 ")
    told = stack.listen()
    day = {"dagster/partition": "2013-02-04"}
    run = stack.dagster.launch("inference", "2013-02-04")
    assert stack.dagster.result("inference", run) == "SUCCESS"

    def started() -> str | None:
        runs = stack.dagster.runs("training", **day)
        return runs[0]["runId"] if runs else None

    training = wait_for(started, 300, "a training run that monitoring asked for")
    assert stack.dagster.result("training", training) == "SUCCESS"
    assert_retrained(told, training, "2013-02-04")
