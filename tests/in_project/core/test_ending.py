"""SIGTERM and Ctrl-C: recorded, alerted once and closed in MLflow, with a sentence and the code.

What is ended is a process of its own, forked from one that has the imports behind it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow.sklearn
import pytest
import sandbox
from flight_delays.alerts import sender
from flight_delays.cli import app
from flight_delays.core import ending, storage, tracking
from flight_delays.core.errors import Terminated
from flight_delays.core.records import StageRecord, read_records
from flight_delays.stages import run_stage
from flight_delays.stages.start import start

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are of POSIX systems")
PACKAGE = "flight_delays"
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["mlflow.sklearn", "mlflow.store.tracking.sqlalchemy_store", f"{PACKAGE}.pipeline"]
)
TRAIN = ["run", "training", "--partition", sandbox.PARTITION]
# The stage, and what it does as the signal comes: in a thread, which nothing can interrupt, and in
# the main one.
LAST_CALLS: dict[str, tuple[Any, str]] = {
    "train-linear": (mlflow.sklearn, "log_model"),
    "validate": (storage, "write_partition"),
}


def command(root: Path, arguments: list[str], label: str, number: int) -> None:
    """Run the command line, and send this process a signal in a stage that then hangs."""
    module, function = LAST_CALLS[label]

    def hang(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), number)
        threading.Event().wait()

    def tell(event: Any) -> None:
        with (root / "told.jsonl").open("a") as told:
            print(event.model_dump_json(), file=told)

    setattr(module, function, hang)
    sender.send = tell  # type: ignore[assignment]
    # On a busy machine they must not be cut short.
    ending.LAST_WORDS_SECONDS = 3600.0
    with (root / "stderr.txt").open("w") as shown:
        os.dup2(shown.fileno(), 2)
    sys.argv = ["pipeline", *arguments]
    with sandbox.enter(root, sandbox.SMALL):
        app.main()


def end(root: Path, arguments: list[str], label: str, number: int) -> tuple[str, list[Any]]:
    """End a command by a signal; returns what it showed, and what the team was told."""
    (root / "told.jsonl").touch()
    process = PROCESSES.Process(target=command, args=(root, arguments, label, number))
    process.start()
    process.join()
    shown = (root / "stderr.txt").read_text()
    assert process.exitcode == 128 + number, shown[-2000:]
    told = [json.loads(line) for line in (root / "told.jsonl").read_text().splitlines()]
    return " ".join(shown.split()), told


def ended_by_signal() -> list[StageRecord]:
    [folder] = Path("var/artifacts/runs").iterdir()
    return [record for record in read_records(folder.name) if record.exit_code]


def statuses() -> set[str]:
    runs = tracking.client().search_runs([tracking.experiment_id()])
    return {run.info.status for run in runs}


@pytest.mark.parametrize("label", LAST_CALLS)
def test_sigterm_ends_a_run_like_any_other_failure(
    small: Path, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small)
    shown, told = end(small, TRAIN, label, signal.SIGTERM)
    assert f"error: Terminated: SIGTERM ended the run in {label}: look who sent it" in shown
    assert "Traceback" not in shown
    [record] = ended_by_signal()
    assert (record.label, record.exit_code) == (label, 143)
    assert "SIGTERM ended the run" in f"{record.error}"
    assert [(event["kind"], event["stage"]) for event in told] == [("failure", label)]
    assert statuses() == {"KILLED"}
    [page] = Path("var/artifacts/reports").rglob("*.html")
    assert "SIGTERM ended the run" in page.read_text()


@pytest.mark.parametrize("label", LAST_CALLS)
def test_ctrl_c_names_the_stage_and_alerts_nobody(
    small: Path, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small)
    shown, told = end(small, TRAIN, label, signal.SIGINT)
    assert f"Ctrl-C ended the run in {label}" in shown
    assert [record.label for record in ended_by_signal()] == [label]
    assert told == []
    assert statuses() == {"KILLED"}


def test_a_stage_of_its_own_process_tells_of_its_signal_and_leaves_the_run_open(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small)
    run = start("training", sandbox.PARTITION, key="pod").model_dump(mode="json")
    arguments = ["stage", "validate", json.dumps([run, run_stage("ingest", run)])]
    shown, told = end(small, arguments, "validate", signal.SIGTERM)
    assert "SIGTERM ended the run in validate" in shown
    [event] = told
    assert (event["stage"], event["run_key"]) == ("validate", "pod")
    assert [record.label for record in ended_by_signal()] == ["validate"]
    assert statuses() == {"RUNNING"}


def test_a_signal_that_comes_twice_at_once_counts_once() -> None:
    with ending.raise_signals():
        with pytest.raises(Terminated) as caught:
            os.kill(os.getpid(), signal.SIGTERM)
        # As `uv run` does.
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def hang_in_last_words() -> None:
    ending.SAME_WITHIN_SECONDS = 0.0
    with ending.raise_signals():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Terminated:
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait()


def end_beside_a_handler_that_goes_on() -> None:
    signal.signal(signal.SIGTERM, lambda *_: None)
    ending.end_on_signal(lambda error: time.sleep(0))
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait()


@pytest.mark.parametrize("target", [hang_in_last_words, end_beside_a_handler_that_goes_on])
def test_the_process_ends_whatever_hangs(target: Callable[[], None]) -> None:
    process = PROCESSES.Process(target=target)
    process.start()
    process.join()
    assert process.exitcode == 143


@pytest.mark.parametrize("over_handlers", [True, False])
def test_an_engines_handler_is_called_first_and_replaced_only_where_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, over_handlers: bool
) -> None:
    called: list[int] = []
    monkeypatch.setattr(ending, "over_handlers", over_handlers)
    before = signal.signal(signal.SIGTERM, lambda number, _: called.append(number))
    try:
        with ending.raise_signals():
            os.kill(os.getpid(), signal.SIGTERM)
        raised = False
    except Terminated:
        raised = True
    finally:
        signal.signal(signal.SIGTERM, before)
    assert called == [signal.SIGTERM]
    assert raised is over_handlers
