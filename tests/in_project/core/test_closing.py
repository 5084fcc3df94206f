"""What died without a word is closed by the next run; what may live is left alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow.sklearn
import pytest
import sandbox
from flight_delays import pipeline
from flight_delays.core import closing, storage, tracking
from flight_delays.core.records import StageRecord, record_path
from flight_delays.stages.start import start

PACKAGE = "flight_delays"
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["mlflow.sklearn", "mlflow.store.tracking.sqlalchemy_store", f"{PACKAGE}.pipeline"]
)
# Where the functions are that a process dies in: a candidate's run is open, or the run alone.
LAST_CALLS: dict[str, Any] = {"log_model": mlflow.sklearn, "log_params": tracking}


def run_and_die(root: Path, function: str) -> None:
    """Train until a function is called, and die there."""
    die: Any = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
    setattr(LAST_CALLS[function], function, die)
    with sandbox.enter(root, sandbox.SMALL):
        pipeline.execute("training", sandbox.PARTITION)


def statuses() -> dict[str, str]:
    """Return the status of each MLflow run by its name."""
    runs = tracking.client().search_runs([tracking.experiment_id()])
    return {str(run.info.run_name): str(run.info.status) for run in runs}


def left_open(key: str, since: datetime, **tags: str) -> str:
    """Open a run in MLflow that nobody closes."""
    client = tracking.client()
    created = client.create_run(
        tracking.experiment_id(),
        start_time=int(1000 * since.timestamp()),
        tags={tracking.RUN_KEY_TAG: key, tracking.CHILD_TAG: "", **tags},
        run_name=key,
    )
    return str(created.info.run_id)


@pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="asks Linux for the process")
def test_a_killed_run_and_its_candidates_are_closed_by_the_next_with_the_reason(
    small: Path,
) -> None:
    process = PROCESSES.Process(target=run_and_die, args=(small, "log_model"))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    parent = f"training {sandbox.PARTITION}"
    assert statuses() == {parent: "RUNNING", "linear": "RUNNING"}

    start("inference", sandbox.PARTITION, key="next")
    assert statuses() == {
        parent: "KILLED",
        "linear": "KILLED",
        f"inference {sandbox.PARTITION}": "RUNNING",
    }
    [dead] = tracking.client().search_runs(
        [tracking.experiment_id()], f"attributes.run_name = '{parent}'"
    )
    reason = dead.data.tags[closing.REASON_TAG]
    assert reason == f"its process {process.pid} ended without a word; closed when next began"
    assert dead.info.end_time < 1000 * datetime.now(UTC).timestamp()


@pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="asks Linux for the process")
def test_a_run_that_dies_as_it_is_opened_is_closed_by_the_next(small: Path) -> None:
    process = PROCESSES.Process(target=run_and_die, args=(small, "log_params"))
    process.start()
    process.join()
    parent = f"training {sandbox.PARTITION}"
    assert statuses() == {parent: "RUNNING"}
    start("inference", sandbox.PARTITION)
    assert statuses()[parent] == "KILLED"


def test_a_run_whose_process_lives_is_never_closed(tracked: Path) -> None:
    since = datetime.now(UTC) - timedelta(days=30)
    left_open("alive", since, **{closing.OWNER_TAG: closing.this_process()})
    start("training", sandbox.PARTITION)
    assert statuses()["alive"] == "RUNNING"


def test_an_engines_run_is_closed_when_no_stage_can_still_be_at_work(tracked: Path) -> None:
    now = datetime.now(UTC)
    left_open("old", now - timedelta(days=2))
    left_open("of another machine", now - timedelta(days=2), **{closing.OWNER_TAG: "b/n/7-1"})
    left_open("new", now - timedelta(minutes=5))
    left_open("slow", now - timedelta(days=2))
    record = StageRecord(stage="train", label="train", started=now, seconds=1)
    storage.write_model(record_path("slow", "train"), record)
    for _ in range(2):
        start("training", sandbox.PARTITION)
        found = statuses()
        assert (found["old"], found["of another machine"]) == ("KILLED", "KILLED")
        assert (found["new"], found["slow"]) == ("RUNNING", "RUNNING")


def test_a_run_that_ends_by_itself_meanwhile_stays_as_it_ended(
    tracked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = left_open("racing", datetime.now(UTC) - timedelta(days=2))
    last_seen = closing._last_seen

    def end_first(other: Any) -> datetime:
        tracking.client().set_terminated(run_id, "FINISHED")
        return last_seen(other)

    monkeypatch.setattr(closing, "_last_seen", end_first)
    start("training", sandbox.PARTITION)
    assert statuses()["racing"] == "FINISHED"


def test_a_run_starts_although_the_dead_cannot_be_closed(
    tracked: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Any) -> None:
        raise ConnectionError("MLflow is away")

    monkeypatch.setattr(closing, "_close_what_died", fail)
    assert start("training", sandbox.PARTITION).tracking_run_id
    assert "runs that died are not closed yet: ConnectionError: MLflow is away" in caplog.text
