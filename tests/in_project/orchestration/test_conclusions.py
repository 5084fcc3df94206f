"""What a run from the command line ends with, and a run for each of some partitions."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import sandbox
from flight_delays.core import storage
from flight_delays.core.errors import SettingsError
from flight_delays.core.records import StageRecord, record_path
from flight_delays.orchestration.backfill import backfill
from flight_delays.orchestration.local_run import LOGS_KEPT, attended, conclude
from flight_delays.orchestration.runs import refuse_catchup, refuse_dates
from flight_delays.orchestration.servers import out


def test_a_run_without_a_stage_is_a_failure(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="training run ended without a single stage"):
        conclude("training", "manual 1", None)
    with pytest.raises(SystemExit, match="ended as failed"):
        conclude("training", "manual 1", "the DAG ended as failed")

    record = StageRecord(stage="start", label="start", started="2026-01-01T00:00Z", seconds=1)  # type: ignore[arg-type]
    storage.write_model(record_path("training-manual-1", "start"), record)
    conclude("training", "manual 1", None)
    assert capsys.readouterr().out.count("training-manual-1") == 3


def test_what_an_engine_prints_is_in_a_file_and_its_end_is_shown_where_no_stage_says_why(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with attended("training", "This engine", verbose=False) as log:
        os.write(1, b"a word of the engine\n")
        subprocess.run([sys.executable, "-c", "print('a word of its child')"], check=True)
        out.print("a word for the person")
    assert log is not None
    shown = capfd.readouterr().out
    assert "a word for the person" in shown
    assert "of the engine" not in shown
    assert f"all it prints: {log.relative_to(project)}" in shown
    assert {"a word of the engine", "a word of its child"} <= {*log.read_text().splitlines()}

    with pytest.raises(SystemExit, match=r"it failed; all it printed: var/log/training-.*\.log"):
        conclude("training", "manual 1", "it failed", log)
    assert "a word of its child" in capfd.readouterr().out


def test_all_is_shown_to_who_wants_to_see_it(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with attended("training", "This engine", verbose=True) as log:
        os.write(1, b"a word of the engine\n")
    assert log is None
    assert "a word of the engine" in capfd.readouterr().out


def test_the_logs_of_the_last_runs_are_kept(project: Path) -> None:
    folder = project / "var" / "log"
    folder.mkdir(parents=True)
    for number in range(30):
        (folder / f"training-20130101T0000{number}-1.log").touch()
    (folder / "mlflow.log").touch()
    with attended("training", "This engine", verbose=False) as log:
        pass
    assert log is not None
    kept = sorted(path.name for path in folder.glob("training-*.log"))
    assert len(kept) == LOGS_KEPT
    assert kept[-1] == log.name
    assert (folder / "mlflow.log").exists()


def test_poe_leaves_a_run_the_time_that_its_last_words_take() -> None:
    """Poe kills what it waits for two seconds after Ctrl-C, unless that has taken its place."""
    tasks = tomllib.loads((sandbox.CHECKOUT / "pyproject.toml").read_text())["tool"]["poe"]["tasks"]
    assert tasks["run"]["use_exec"]


def test_catching_up_is_refused_by_name_where_an_engine_cannot(project: Path) -> None:
    refuse_catchup("This engine")
    with (
        sandbox.enter(project, {"SCHEDULE__CATCHUP": "true"}),
        pytest.raises(SettingsError, match=r"\[schedule\] catchup is true, but This engine"),
    ):
        refuse_catchup("This engine")


@pytest.mark.parametrize("day", ["START_DATE", "END_DATE"])
def test_dates_are_refused_where_an_engine_does_not_keep_them(project: Path, day: str) -> None:
    refuse_dates("This engine")
    with (
        sandbox.enter(project, {f"SCHEDULE__{day}": "2999-01-01"}),
        pytest.raises(SettingsError, match=rf"\[schedule\] {day.lower()} is 2999-01-01, but This"),
    ):
        refuse_dates("This engine")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return what backfill starts; the run of one day fails."""
    started: list[list[str]] = []

    def start(command: list[str]) -> Any:
        started.append(command[-2:])
        return mock.Mock(returncode=int(command[-1] == "2013-02-02"))

    monkeypatch.setattr("flight_delays.orchestration.backfill.subprocess.Popen", start)
    return started


def test_a_backfill_has_its_last_partition_too(
    project: Path, runs: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    backfill("inference", "2013-01-30", "2013-02-01")
    days = ["2013-01-30", "2013-01-31", "2013-02-01"]
    assert runs == [["inference", day] for day in days]
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "inference of 2013-01-31, 2 of 3"
    assert lines[-1] == "all 3 ended well"


def test_a_backfill_goes_on_after_a_failure_and_names_it(
    project: Path, runs: list[list[str]]
) -> None:
    with pytest.raises(SystemExit, match="1 of 3 failed: 2013-02-02"):
        backfill("training", "2013-02-01", "2013-02-03")
    assert len(runs) == 3


@pytest.mark.parametrize(
    ("first", "last", "sentence"),
    [
        ("2013-02-02", "2013-02-01", "2013-02-02 comes after 2013-02-01"),
        ("2013-02-02", "tomorrow", "'tomorrow' is not a day like"),
    ],
)
def test_a_backfill_of_nothing_is_refused(
    project: Path, runs: list[list[str]], first: str, last: str, sentence: str
) -> None:
    with pytest.raises(SystemExit, match=sentence):
        backfill("inference", first, last)
    assert runs == []
