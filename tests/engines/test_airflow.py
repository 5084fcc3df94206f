"""The default project on the real thing: Airflow standalone, its scheduler, REST, MLflow, alerts.

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

from ..support.airflow import INFERENCE, TRAINING, Airflow, log_in, open_client
from ..support.faults import FAILS_ONCE, HANGS, fault
from ..support.projects import children_of, make_installed_project, runs_of
from ..support.stories import (
    QUICK,
    Story,
    assert_first_champion,
    assert_recovered,
    assert_rejected,
    assert_timed_out,
    running,
    wait_for,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass
class Stack(Story):
    """The running project with its server."""

    airflow: Airflow


@pytest.fixture(scope="module")
def stack(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run `poe up` of a default project."""
    project = make_installed_project(sources, tmp_path_factory.mktemp("standalone"))
    config = QUICK | {
        "stage_timeout_minutes = 30": "stage_timeout_minutes = 1.5",
        "start_date = 2013-01-01": "start_date = 2013-02-01",
        "catchup = false": "catchup = true",
    }
    port = f"{free_port()}"
    variables = {
        "AIRFLOW__API__PORT": port,
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "true",
    }
    with running(project, config, variables, is_ready=log_in) as story:
        yield Stack(project, story.slack, story.mail, Airflow(open_client(story.log, port)))


def test_dags_are_there_and_documented(stack: Stack) -> None:
    assert stack.airflow.get("/importErrors")["total_entries"] == 0
    dags = {dag["dag_id"]: dag for dag in stack.airflow.get("/dags")["dags"]}

    assert set(dags) == {TRAINING, INFERENCE}
    for name in dags:
        details = stack.airflow.get(f"/dags/{name}/details")
        assert "Partition" in details["doc_md"]
        assert details["owners"] == ["ml-team"]
        assert details["max_active_runs"] == 1


def test_training_trains_all_candidates_and_promotes_a_champion(stack: Stack) -> None:
    stack.airflow.pause(TRAINING, False)
    run = stack.airflow.trigger(TRAINING, partition="2013-01-31")
    assert stack.airflow.result(TRAINING, run) == "success"

    states = {name: task["state"] for name, task in stack.airflow.tasks(TRAINING, run).items()}
    assert {name for name, state in states.items() if state == "success"} >= {
        "window.train[linear]",
        "window.train[random_forest]",
        "window.train[xgboost]",
        "promote",
        "report",
    }
    assert states["keep_champion"] == states["wider_window.ingest"] == "skipped"

    # Other teams' DAGs may be scheduled on it.
    [event] = stack.airflow.get("/assets/events")["asset_events"]
    assert (event["name"], event["source_task_id"]) == ("flight-delays-champion", "promote")

    mlflow = assert_first_champion(stack)
    [parent] = runs_of(mlflow, "training")
    assert parent["metrics"]["rows.ingest"] == parent["metrics"]["rows.validate"] > 15_000
    assert parent["tags"]["mlflow.source.git.commit"]
    for child in children_of(mlflow, parent).values():
        assert child["status"] == "FINISHED"
        assert 0.5 < child["metrics"]["validation_roc_auc"] < 1
        assert child["inputs"]


def test_scheduled_runs_take_their_own_date_and_backfill_works(stack: Stack) -> None:
    stack.airflow.pause(INFERENCE, False)
    wait_for(lambda: stack.scored("2013-02-01", "2013-02-02"), 300, "two scheduled days")
    day = {"from_date": "2013-02-06T00:00:00Z", "to_date": "2013-02-06T23:59:59Z"}
    stack.airflow.change("POST", "/backfills", {"dag_id": INFERENCE, **day})
    wait_for(lambda: stack.scored("2013-02-06"), 300, "the backfilled day")
    stack.airflow.pause(INFERENCE, True)

    found = stack.airflow.get(f"/dags/{INFERENCE}/dagRuns")["dag_runs"]
    assert {"scheduled", "backfill"} == {run["run_type"] for run in found}
    parents = runs_of(stack.project.mlflow(), "inference")
    assert {"2013-02-01", "2013-02-02", "2013-02-06"} <= {
        parent["tags"]["pipeline.partition"] for parent in parents
    }


def test_bad_data_tells_every_channel_once_and_leaves_the_champion(stack: Stack) -> None:
    before = stack.project.mlflow()
    told = stack.listen()
    with stack.broken("2013-02-07"):
        # Without a partition a manual run takes the newest.
        run = stack.airflow.trigger(TRAINING)
        assert stack.airflow.result(TRAINING, run) == "failed"

    tasks = stack.airflow.tasks(TRAINING, run)
    assert [name for name, task in tasks.items() if task["state"] == "failed"] == ["window.ingest"]
    assert tasks["window.ingest"]["try_number"] == 1
    assert tasks["report"]["state"] == "success"
    assert_rejected(told, before, "training", "window.ingest", "2013-02-07")
    assert f"/dags/{TRAINING}/runs/" in told.slack[0]


def test_a_killed_and_a_flaky_task_are_tried_again_and_the_run_recovers(stack: Stack) -> None:
    told = stack.listen()
    with fault(stack.project, "random_forest", FAILS_ONCE):
        run = run_and_kill_a_task(stack)

    tasks = stack.airflow.tasks(TRAINING, run)
    tries = {
        name: task["try_number"] for name, task in tasks.items() if name.startswith("window.train[")
    }
    assert tries["window.train[random_forest]"] == 2
    # The killed one, too, and nothing else.
    assert sorted(tries.values()) == [1, 2, 2]
    assert_recovered(told)


def run_and_kill_a_task(stack: Stack) -> str:
    """Start training, kill the process of a candidate, and return the run once it succeeded."""
    run = stack.airflow.trigger(TRAINING, partition="2013-02-03")

    def training_process() -> psutil.Process | None:
        tasks = stack.airflow.tasks(TRAINING, run)
        running = [
            task
            for name, task in tasks.items()
            # Not the flaky one: the first and the third candidate.
            if name.startswith("window.train[")
            and task["map_index"] in (0, 2)
            and task["state"] == "running"
            and task["pid"]
        ]
        for task in running:
            if psutil.pid_exists(task["pid"]):
                return psutil.Process(task["pid"])
        return None

    wait_for(training_process, 200, "a training task to run").kill()
    assert stack.airflow.result(TRAINING, run) == "success"
    return run


def test_a_task_that_hangs_is_ended_at_its_limit_and_alerted_once(stack: Stack) -> None:
    told = stack.listen()
    with fault(stack.project, "linear", HANGS):
        run = stack.airflow.trigger(TRAINING, partition="2013-02-04")
        assert stack.airflow.result(TRAINING, run) == "failed"

    tasks = stack.airflow.tasks(TRAINING, run).values()
    # A task that failed has no name of its own yet: linear is the first candidate.
    [hung] = [task for task in tasks if (task["task_id"], task["map_index"]) == ("window.train", 0)]
    assert hung["state"] == "failed"
    # The limit, and not the hour that the stage would have waited.
    assert 80 < hung["duration"] < 300
    assert_timed_out(told, "window.train", "Timeout")
    assert len(told.mail) == 1


def test_drift_alerts_and_starts_training_for_the_same_day(stack: Stack) -> None:
    config = stack.project.path / "config" / "pipeline.toml"
    text = config.read_text()
    assert "max_psi = 0.1 " in text
    # Every task reads the settings anew: from here on any difference counts as drift.
    config.write_text(text.replace("max_psi = 0.1 ", "max_psi = 1e-9 "))
    told = stack.listen()
    stack.airflow.pause(INFERENCE, False)

    def started_by_drift() -> dict[str, Any] | None:
        runs = stack.airflow.get(f"/dags/{TRAINING}/dagRuns")["dag_runs"]
        return next((run for run in runs if run["run_type"] == "asset_triggered"), None)

    run = wait_for(started_by_drift, 300, "a training run that monitoring asked for")
    stack.airflow.pause(INFERENCE, True)
    config.write_text(text)
    assert stack.airflow.result(TRAINING, run["dag_run_id"]) == "success"

    drifts = [text for text in told.slack if "Drift" in text]
    assert drifts
    key = run["dag_run_id"].replace("+", "-").replace(":", "-").replace("__", "-").replace("_", "-")
    trained = stack.newest("training")
    assert trained["tags"]["pipeline.run_key"] == f"training-{key}"
    assert any(f"/ {trained['tags']['pipeline.partition']}" in text for text in drifts)
