"""A step's own retries, its last words, waiting for a partition, and `poe up` without a cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flight_delays.core import storage, tracking
from flight_delays.core.errors import DataRejected, Terminated
from flight_delays.core.outcomes import Violation
from flight_delays.core.settings import load_settings
from flight_delays.orchestration.kubeflow import local as kubeflow
from flight_delays.orchestration.kubeflow import step as kubeflow_step
from sandbox import CHECKOUT


def attempt(key: str = "training-1") -> kubeflow_step.Try:
    return kubeflow_step.Try("training", key, "ingest", "2013-01-28")


def fast_retries(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let nobody wait, and return the list that pauses are noted in."""
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    return pauses


def test_a_step_is_tried_again_with_longer_and_longer_pauses(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses, errors = fast_retries(monkeypatch), [OSError("first"), OSError("second")]

    def work() -> str:
        if errors:
            raise errors.pop()
        return "done"

    assert attempt()(work) == "done"
    assert pauses == [30, 60]
    assert kubeflow_step.read_failures("training-1") == []


def test_bad_data_is_never_tried_again_not_even_by_kubeflow(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses, calls = fast_retries(monkeypatch), []

    def work() -> None:
        calls.append(1)
        raise DataRejected("2013-01-28", [Violation(check="too_few_rows", detail="3 rows")])

    for _ in range(3):
        with pytest.raises(SystemExit):
            attempt()(work)

    assert (len(calls), pauses) == (1, [])
    [failure] = kubeflow_step.read_failures("training-1")
    assert failure.event.kind == "data_rejected"
    assert failure.event.try_number == 1


def test_a_step_gives_up_after_its_last_try(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast_retries(monkeypatch)
    monkeypatch.setenv("KFP_UI_URL", "https://kubeflow.example.org/")

    def work() -> None:
        raise OSError("no route to host")

    with pytest.raises(SystemExit):
        attempt("training-7f3c")(work)

    [failure] = kubeflow_step.read_failures("training-7f3c")
    assert failure.event.try_number == 3
    assert failure.event.error == "OSError: no route to host"
    assert failure.event.log_url == "https://kubeflow.example.org/#/runs/details/7f3c"


def finish(folder: Path, status: dict[str, Any]) -> str:
    """Run the last step of a run that no other step has left word of; returns its page."""
    given = {"pipeline": "training", "partition": "", "run_id": "9", "status": json.dumps(status)}
    arguments = [text for name, value in given.items() for text in (f"--{name}", value)]
    kubeflow_step.main(["finish", *arguments, "--to-page", str(folder / "out" / "page")])
    return (folder / "out" / "page").read_text()


def test_a_run_whose_pod_was_evicted_is_told_once(small: Path, inbox: Any, tmp_path: Path) -> None:
    """What a step that left no word failed of is what Kubeflow knows."""
    page = finish(tmp_path, {"state": "FAILED", "error": {"message": "pod was evicted"}})

    [event] = inbox()
    assert (event["kind"], event["error"]) == ("failure", "pod was evicted")
    assert "no report" in page


def end_a_step(folder: Path, number: int) -> str:
    """Begin a run, and end a step of it by a signal; returns the run's id in MLflow."""
    day, out = "2013-01-28", str(folder / "out.json")
    given = ["--pipeline", "training", "--run_id", "9", "--partition", day]
    kubeflow_step.main(["start", *given, "--to-reference", out])
    run = Path(out).read_text()

    def end(*_: Any) -> None:
        os.kill(os.getpid(), number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "write_dataset", end)
        with pytest.raises(SystemExit) as caught:
            kubeflow_step.main(["ingest", "--run", run, "--window", "normal"])
    assert caught.value.code == 128 + number
    return str(json.loads(run)["tracking_run_id"])


def test_a_pod_that_is_terminated_may_be_tried_again_and_is_told_once_at_the_end(
    small: Path, inbox: Any, tmp_path: Path
) -> None:
    tracking_run_id = end_a_step(tmp_path, signal.SIGTERM)
    assert kubeflow_step.read_failures("training-9") == []
    assert inbox() == []

    finish(tmp_path, {"state": "FAILED", "error": {"message": "pod was evicted"}})
    [event] = inbox()
    assert event["stage"] == "ingest"
    assert "SIGTERM ended the run in ingest" in event["error"]
    assert tracking.client().get_run(tracking_run_id).info.status == "KILLED"


def test_ctrl_c_on_this_machine_closes_the_run_and_alerts_nobody(
    small: Path, inbox: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = []

    def pipeline(*, partition: str) -> None:
        ended.append(end_a_step(tmp_path, signal.SIGINT))
        # As the process that waits for the step's.
        raise Terminated(signal.SIGINT)

    module = SimpleNamespace(Steps=lambda **_: None, define=lambda _: pipeline)
    monkeypatch.setattr(kubeflow, "definition", lambda _: module)
    monkeypatch.setenv(kubeflow_step.LOCAL_RUN_ID, "")
    with pytest.raises(SystemExit) as caught:
        kubeflow.run("training", "2013-01-28")
    assert caught.value.code == 130
    assert inbox() == []
    assert tracking.client().get_run(ended[0]).info.status == "KILLED"


def test_bad_settings_are_told_once(
    small: Path, inbox: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be read or kept then, and yet the team hears of it."""
    monkeypatch.setenv("PIPELINE_TRAINING__TRIALS", "many")
    load_settings.cache_clear()

    with pytest.raises(SystemExit):
        attempt()(load_settings)
    finish(tmp_path, {"state": "FAILED", "error": {}})

    [event] = inbox()
    assert "training.trials" in event["error"]


@pytest.mark.parametrize(
    ("wanted", "found"), [("", "2013-02-07"), ("2013-01-28", "2013-01-28")], ids=["newest", "day"]
)
def test_waiting_ends_when_the_partition_is_there(
    small: Path, tmp_path: Path, wanted: str, found: str
) -> None:
    given = ["--pipeline", "training", "--run_id", "1", "--partition", wanted]
    kubeflow_step.main(["wait_for_partition", *given, "--to-Output", str(tmp_path / "day")])

    assert (tmp_path / "day").read_text() == found


@pytest.mark.parametrize("wanted", ["previous", "last week"])
def test_waiting_gives_up_on_what_never_comes(
    small: Path, monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    """A scheduled run waits for the day before it; what is no partition is never waited for."""
    pauses = fast_retries(monkeypatch)
    monkeypatch.setenv("PIPELINE_LIMITS__WAIT_TIMEOUT_MINUTES", "1e-9")
    load_settings.cache_clear()
    given = {"pipeline": "inference", "partition": wanted, "run_id": "1"}

    with pytest.raises(SystemExit):
        kubeflow_step.wait_for_partition("wait_for_partition", given)

    [failure] = kubeflow_step.read_failures("inference-1")
    yesterday = f"{datetime.now(UTC).date() - timedelta(days=1)}"
    expected = yesterday if wanted == "previous" else "is not a day"
    assert expected in str(failure.event.error)
    assert pauses == []


def test_up_says_that_it_starts_no_kubeflow(project: Path) -> None:
    (project / "pipelines").symlink_to(CHECKOUT / "pipelines")
    done = subprocess.run(
        [sys.executable, "-c", f"from {kubeflow.__name__} import up; up()"],
        # With a server for MLflow there is nothing to start.
        env={**os.environ, "MLFLOW_TRACKING_URI": "https://mlflow.example.org", "KFP_ENDPOINT": ""},
        capture_output=True,
        text=True,
        check=True,
    )

    assert "not started: set KFP_ENDPOINT" in done.stdout
    assert "https://mlflow.example.org" in done.stdout
    written = {file.name for file in (project / "var/kubeflow").iterdir()}
    assert written == {"training.yaml", "inference.yaml"}
