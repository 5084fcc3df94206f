"""The hard time limit of a stage: raised where Python can interrupt it, else the process ends."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flight_delays.core import tracking
from flight_delays.core.deadline import EXIT_CODE, deadline
from flight_delays.core.errors import PipelineError, StageTimeout
from flight_delays.core.records import read_records

# pytest-timeout's usual way takes the alarm that is tested here.
pytestmark = pytest.mark.timeout(600, method="thread")


def never(error: StageTimeout) -> None:
    """Stand for last words that nobody must hear."""
    pytest.fail(str(error))


def test_a_stage_that_waits_is_interrupted_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    timer: Callable[..., threading.Timer] = threading.Timer

    def patient(_: float, function: Callable[[], Any]) -> threading.Timer:
        """On a busy machine the process must not end before the interruption is served."""
        return timer(3600, function)

    monkeypatch.setattr(threading, "Timer", patient)
    message = r"stage 'train' .* 0.005 minutes.*\[limits\]"
    with pytest.raises(StageTimeout, match=message), deadline("train", 0.3, never):
        threading.Event().wait()


def test_a_stage_within_its_limit_leaves_no_timer_behind() -> None:
    with deadline("train", 600, never):
        pass
    for thread in threading.enumerate():
        if thread.name == "deadline of train":
            thread.join(timeout=300)
            assert not thread.is_alive()


def test_a_timeout_may_be_retried_and_says_the_same_in_another_process() -> None:
    error = StageTimeout("train", 90)
    assert not isinstance(error, PipelineError)
    assert str(error.__reduce__()[0](*error.__reduce__()[1])) == str(error)


# Candidates train in threads, which nothing can interrupt while they wait. Only the stage that
# hangs has a short limit, and its last words have all the time they need on a busy machine.
HANGING = """
    import sys, threading
    from flight_delays import pipeline
    from flight_delays.alerts import sender
    from flight_delays.core import deadline, stage
    from example.domain import problem

    def tell(event):
        with open(sys.argv[1], "a") as told:
            print(event.model_dump_json(), file=told)

    def limit(label, seconds, last_words):
        return unpatched(label, 1.0 if label == "train-linear" else seconds, last_words)

    def hang(trial, seed):
        threading.Event().wait()

    deadline.BEFORE_EXIT_SECONDS = 3600.0
    unpatched, stage.deadline = stage.deadline, limit
    sender.send = tell
    problem.CANDIDATES["linear"] = hang
    pipeline.execute("training", "2013-01-28")
"""


def test_a_stage_that_cannot_be_interrupted_ends_its_process_reported_and_alerted(
    small: Path, tmp_path: Path
) -> None:
    told = tmp_path / "told.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(HANGING), str(told)],
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == EXIT_CODE, done.stderr[-2000:]
    [run] = [
        run
        for run in tracking.client().search_runs([tracking.experiment_id()])
        if run.data.tags.get("pipeline.name")
    ]
    assert run.info.status == "FAILED"
    [folder] = (small / "var/artifacts/runs").iterdir()
    records = read_records(folder.name)
    before = ["ingest", "validate", "featurize", "train-linear"]
    assert [record.label for record in records if record.label in before] == before
    assert [record.label for record in records if record.exit_code] == ["train-linear"]
    [page] = (small / "var/artifacts/reports").rglob("*.html")
    assert "ran longer than its limit" in page.read_text()
    [event] = [json.loads(line) for line in told.read_text().splitlines()]
    assert (event["kind"], event["stage"]) == ("failure", "train-linear")
    assert "StageTimeout" in event["error"]
