"""A Prefect project on the real thing: server, worker, deployments, REST, MLflow, alerts.

One server serves all tests of this module; they run in their order, as one story.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from receivers import free_port

from ..support.faults import FAILS_ONCE, HANGS, fault
from ..support.prefect import Prefect, process_of
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

    prefect: Prefect


@pytest.fixture(scope="module")
def stack(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run `poe up` of a Prefect project; it is stopped in the middle of a run."""
    folder = tmp_path_factory.mktemp("prefect")
    project = make_installed_project(sources, folder / "project", orchestrator="prefect")
    port = free_port()
    variables = {"PREFECT_SERVER_API_PORT": f"{port}"}
    with running(project, QUICK, variables, stops_within=40) as story:
        prefect = Prefect(f"http://127.0.0.1:{port}")
        yield Stack(project, story.slack, story.mail, prefect)
        run = prefect.launch("training", partition="2013-01-31")
        wait_for(lambda: process_of(prefect, run), 300, "the run's process")
        assert len(story.family()) > 4


def test_deployments_are_there_and_documented(stack: Stack) -> None:
    for name in ("training", "inference"):
        deployment = stack.prefect.deployment(name)
        assert deployment["description"]
        assert set(deployment["tags"]) == {"flight-delays", name}
        assert deployment["global_concurrency_limit"]["limit"] == 1
        assert "partition" in deployment["parameter_openapi_schema"]["properties"]
    assert stack.prefect.deployment("training")["schedules"] == []


def test_training_trains_all_candidates_and_promotes_a_champion(stack: Stack) -> None:
    run = stack.prefect.launch("training", partition="2013-01-31")
    assert stack.prefect.result(run)["state_name"] == "Completed"

    def recorded() -> bool | None:
        done = [
            one for one in stack.prefect.tasks(run).values() if one["state_name"] == "Completed"
        ]
        return len(done) == 12 or None

    wait_for(recorded, 20, "the tasks to be recorded")
    trained = {f"train {name}" for name in ("linear", "random_forest", "xgboost")}
    assert set(stack.prefect.tasks(run)) >= {*trained, "promote", "report"}
    artifacts = stack.prefect.find("artifacts", artifacts={"flow_run_id": {"any_": [run]}})
    kept = {artifact["key"]: f"{artifact['data']}" for artifact in artifacts}
    assert set(kept) == {"challenger", "training-report", "training-mlflow"}
    assert "roc_auc" in kept["challenger"]

    mlflow = assert_first_champion(stack)
    [parent] = runs_of(mlflow, "training")
    assert parent["tags"]["pipeline.run_key"] == f"training-{run}"
    assert parent["tags"]["pipeline.engine_url"] == f"{stack.prefect.address}/runs/flow-run/{run}"
    assert parent["id"] in kept["training-mlflow"]
    # The engine makes no difference to the result.
    assert training_result(mlflow) == training_result(stack.project.run_alone("2013-01-31"))


def test_the_schedule_is_set_and_backfill_runs_by_partition(stack: Stack) -> None:
    deployment = stack.prefect.deployment("inference")
    [schedule] = deployment["schedules"]
    assert schedule["active"]
    assert schedule["schedule"]["cron"] == "0 6 * * *"

    days = ["2013-02-01", "2013-02-02"]
    stack.project.run("poe", "backfill", "inference", days[0], days[-1])
    assert stack.scored(*days)
    # The server that runs shows them.
    completed = {"state": {"type": {"any_": ["COMPLETED"]}}, "name": {"like_": "inference 2013"}}
    runs = stack.prefect.find("flow_runs", flow_runs=completed)
    assert sorted(run["name"] for run in runs) == [f"inference {day}" for day in days]
    waiting = stack.prefect.find(
        "flow_runs",
        deployments={"id": {"any_": [deployment["id"]]}},
        flow_runs={"state": {"type": {"any_": ["SCHEDULED"]}}},
    )
    assert waiting
    assert all(run["auto_scheduled"] for run in waiting)


def test_bad_data_tells_every_channel_once_and_leaves_the_champion(stack: Stack) -> None:
    before = stack.project.mlflow()
    told = stack.listen()
    with stack.broken("2013-02-07"):
        # Without a partition a manual run takes the newest.
        run = stack.prefect.launch("training")
        assert stack.prefect.result(run)["state_name"] == "Failed"

    tasks = stack.prefect.tasks(run)
    assert [name for name, task in tasks.items() if task["state_name"] == "Failed"] == ["ingest"]
    assert tasks["ingest"]["run_count"] == 1
    assert tasks["report"]["state_name"] == "Completed"
    assert_rejected(told, before, "training", "ingest", "2013-02-07")
    assert f"{stack.prefect.address}/runs/task-run/{tasks['ingest']['id']}" in told.slack[0]


def test_a_flaky_task_and_a_killed_run_recover(stack: Stack) -> None:
    told = stack.listen()
    with fault(stack.project, "random_forest", FAILS_ONCE):
        run = stack.prefect.launch("training", partition="2013-02-03")

        def training_process() -> psutil.Process | None:
            tasks = stack.prefect.tasks(run)
            tried = tasks.get("train random_forest", {"run_count": 0})["run_count"]
            return process_of(stack.prefect, run) if tried else None

        wait_for(training_process, 300, "a candidate to be trained").kill()
        ended = stack.prefect.result(run)

    assert ended["state_name"] == "Completed"
    assert ended["run_count"] == 2
    # The same MLflow run, continued.
    assert assert_recovered(told)["tags"]["pipeline.run_key"] == f"training-{run}"


def test_a_stage_that_hangs_is_ended_at_its_limit_and_alerted_once(stack: Stack) -> None:
    told = stack.listen()
    stack.project.edit_config("stage_timeout_minutes = 30", "stage_timeout_minutes = 0.25")
    try:
        with fault(stack.project, "linear", HANGS):
            run = stack.prefect.launch("training", partition="2013-02-02")
            assert stack.prefect.result(run, "Crashed")
    finally:
        stack.project.edit_config("stage_timeout_minutes = 0.25", "stage_timeout_minutes = 30")

    assert_timed_out(told, "StageTimeout", "train-linear", "2013-02-02")


def test_drift_alerts_and_starts_training_for_the_same_day(stack: Stack) -> None:
    # Every run reads the settings anew: from here on any difference counts as drift.
    stack.project.edit_config("max_psi = 0.1 ", "max_psi = 1e-9 ")
    told = stack.listen()
    run = stack.prefect.launch("inference", partition="2013-02-04")
    assert stack.prefect.result(run)["state_name"] == "Completed"

    def started() -> dict[str, Any] | None:
        runs = stack.prefect.find("flow_runs", flows={"name": {"any_": ["training"]}})
        by = {(run["created_by"] or {}).get("type"): run for run in runs}
        return by.get("AUTOMATION")

    training = wait_for(started, 300, "a training run that monitoring asked for")
    assert training["parameters"] == {"partition": "2013-02-04"}
    assert stack.prefect.result(training["id"])["state_name"] == "Completed"
    assert_retrained(told, training["id"], "2013-02-04")
