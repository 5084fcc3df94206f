"""A line per stage, from whatever process it is in."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sandbox
from example.domain import steps
from flight_delays import pipeline
from flight_delays.core.errors import CodeError
from flight_delays.core.refs import Run
from flight_delays.core.stage import EVENTS
from flight_delays.reporting.progress import StageProgress
from flight_delays.reporting.terminal import print_result
from flight_delays.stages.start import start
from rich.console import Console
from sandbox import Trained

ANOTHER_PROCESS = """
import json, sys
from flight_delays.stages import run_stage
run_stage("count_rows", *json.loads(sys.argv[1]))
"""


def text_console(*, terminal: bool = False) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=80, force_terminal=terminal, color_system=None), text


def count_rows_elsewhere(run: Run) -> None:
    dataset = {"uri": "u", "rows": 7, "fingerprint": "f", "validated": True}
    arguments = json.dumps([run.model_dump(mode="json"), dataset])
    subprocess.run([sys.executable, "-c", ANOTHER_PROCESS, arguments], check=True)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_stage_in_another_process_is_shown(tracked: Path, terminal: bool) -> None:
    console, text = text_console(terminal=terminal)
    folder = tracked / "var" / "log"
    folder.mkdir(parents=True)
    # Of a run that was killed: no process has such a number.
    (folder / "stages-99999999.jsonl").touch()
    run = start("training", sandbox.PARTITION)
    with StageProgress(console, lines=True) as progress:
        count_rows_elsewhere(run)
    assert progress.run_key == run.key
    assert "✓ count_rows" in text.getvalue()
    assert ("\x1b" in text.getvalue()) is terminal
    assert EVENTS not in os.environ
    assert list(folder.glob("stages-*")) == []


def test_each_stage_says_in_a_line_what_matters(trained: Trained) -> None:
    """Of the same run again, whose numbers are known."""
    console, text = text_console()
    with StageProgress(console, lines=True):
        pipeline.execute("training", sandbox.PARTITION)
    lines = text.getvalue().splitlines()
    rows = f"{sandbox.result(trained.run, 'validate')['rows']:,} rows"
    assert [line.split()[1] for line in lines if "train-" not in line] == [
        *("ingest", "validate", "count_rows", "look_twice", "featurize"),
        *("select", "evaluate", "promote", "tell", "report"),
    ]
    assert lines[1].endswith(rows)
    assert any("promote" in line and "version 1 stays champion" in line for line in lines)


def test_the_command_line_ends_with_what_failed_and_why(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(run: Any, dataset: Any) -> None:
        raise RuntimeError("the warehouse [is] closed")

    monkeypatch.setattr(steps, "AFTER_VALIDATE", (lost,))
    console, text = text_console()
    with pytest.raises(RuntimeError), StageProgress(console, lines=True) as progress:
        pipeline.execute("training", sandbox.PARTITION)
    assert progress.run_key
    print_result(console, progress.run_key)
    end = text.getvalue().splitlines()[-15:]
    assert f"✗ lost failed for {sandbox.PARTITION}" in end
    assert "  RuntimeError: the warehouse [is] closed" in end
    assert "  not run: featurize, train, select, evaluate, promote" in end
    assert any(line.startswith("report ") for line in end)


def test_a_mistake_is_in_the_report_with_its_code_and_traceback(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(run: Any, dataset: Any) -> None:
        raise KeyError("<script>lost")

    monkeypatch.setattr(steps, "AFTER_VALIDATE", (lost,))
    with pytest.raises(CodeError):
        pipeline.execute("training", sandbox.PARTITION)
    [page] = (small / "var" / "artifacts" / "reports").rglob("*.html")
    html = page.read_text()
    assert "<summary>Traceback</summary>" in html
    assert "Traceback (most recent call last)" in html
    assert "<script>lost" not in html
