"""A line per stage while a run goes on, from whatever processes its stages are in."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

from ..core.logs import console
from ..core.paths import project_root
from ..core.plain import plain
from ..core.records import StageRecord
from ..core.refs import (
    CandidateRef,
    DatasetRef,
    EvaluationRef,
    FeaturesRef,
    MonitorRef,
    PromotionRef,
    ScoresRef,
    StepRef,
)
from ..core.stage import EVENTS, StageEvent
from ..core.storage import is_alive

_LOOKS_EVERY_SECONDS = 0.1
_LONGEST_ERROR = 100
_STARTING = "starting"
# What stands before a stage's result in a terminal: its mark, name and time.
_BEFORE = 36


class StageProgress:
    """Shows the stages of a run as they go.

    Args:
        shown_on: Where; the console of the command line by default.
        lines: Whether each prints a line at its end where that is not a terminal.

    Attributes:
        run_key: Whose stages they are; None until the first one begins.
    """

    run_key: str | None = None

    def __init__(self, shown_on: Console | None = None, *, lines: bool = False) -> None:
        self._console, self._lines = shown_on or console(), lines
        self._progress = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[told]}", table_column=Column(no_wrap=True)),
            console=self._console,
            disable=not self._console.is_terminal,
            refresh_per_second=4,
            # What others print has its place already where a console was given.
            redirect_stdout=shown_on is None,
            redirect_stderr=shown_on is None,
        )
        self._tasks: dict[str, TaskID] = {}
        self._ended = threading.Event()

    def __enter__(self) -> StageProgress:
        self._file = _new_file()
        os.environ[EVENTS] = f"{self._file}"
        self._thread = threading.Thread(target=self._follow, name="progress", daemon=True)
        self._tasks[_STARTING] = self._progress.add_task(f"  {_STARTING}", total=1, told="")
        self._progress.start()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        del os.environ[EVENTS]
        self._ended.set()
        self._thread.join()
        self._progress.stop()
        self._file.unlink(missing_ok=True)

    def _follow(self) -> None:
        with self._file.open("rb") as lines:
            over = False
            while not over:
                over = self._ended.wait(_LOOKS_EVERY_SECONDS)
                for line in lines:
                    event = StageEvent.model_validate_json(line)
                    self.run_key = event.run_key
                    self._show(event.label, event.record)

    def _show(self, label: str, record: StageRecord | None) -> None:
        name = f"{label:<20}"
        if record is None:
            for former in {_STARTING, label} & self._tasks.keys():
                # The first stage has begun, or one is tried again.
                self._progress.remove_task(self._tasks.pop(former))
            self._tasks[label] = self._progress.add_task(f"  {name}", total=1, told="")
            return
        mark = "[red]✗[/]" if record.error else "[green]✓[/]"
        told = essence(record)
        if self._console.is_terminal:
            fits = told[: max(0, self._console.width - _BEFORE)]
            self._progress.update(
                self._tasks[label], description=f"{mark} {name}", told=escape(fits), completed=1
            )
        elif self._lines:
            line = f"{mark} {name} {record.seconds:6.1f} s  {escape(told)}"
            self._console.print(line, highlight=False, soft_wrap=True)


def _new_file() -> Path:
    """Return a file for the stages of this process's run; those of runs that died are removed."""
    folder = project_root() / "var" / "log"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in folder.glob("stages-*.jsonl"):
        if not is_alive(int(old.stem.partition("-")[2])):
            old.unlink(missing_ok=True)
    file = folder / f"stages-{os.getpid()}.jsonl"
    file.write_bytes(b"")
    return file


def essence(record: StageRecord) -> str:
    """Return what matters of a stage that has ended, in a few words."""
    if record.error:
        sentence = plain(f"{record.error}", one_line=True)
        return sentence[:_LONGEST_ERROR] + ("…" if len(sentence) > _LONGEST_ERROR else "")
    words = _ESSENCE.get(record.stage)
    # The report returns where it is, which is shown below.
    return words(record.result or {}) if words else ""


def in_line(metrics: Mapping[str, float]) -> str:
    """Return metrics in one line."""
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def of_step(result: Mapping[str, Any]) -> str:
    """Return what one of the team's own steps returned, in one line."""
    given = StepRef.model_validate(result).result.items()
    return ", ".join(f"{name} {value}" for name, value in given) or "done"


def _validated(result: Mapping[str, Any]) -> str:
    data = DatasetRef.model_validate(result)
    quarantined = int(data.metrics.get("rows_quarantined", 0))
    return f"{data.rows:,} rows" + (f", {quarantined:,} in quarantine" if quarantined else "")


def _evaluated(result: Mapping[str, Any]) -> str:
    evaluation = EvaluationRef.model_validate(result)
    first = in_line(dict(list(evaluation.metrics.items())[:1]))
    return f"{first}: {evaluation.verdict.decision}"


def _monitored(result: Mapping[str, Any]) -> str:
    monitoring = MonitorRef.model_validate(result)
    return "; ".join(f"{reason}" for reason in monitoring.reasons) or "no drift, no loss"


_ESSENCE: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "ingest": lambda one: f"{DatasetRef.model_validate(one).rows:,} rows",
    "validate": _validated,
    "featurize": lambda one: f"{FeaturesRef.model_validate(one).rows:,} rows",
    "train": lambda one: f"{CandidateRef.model_validate(one).score:.4f} on validation rows",
    "select": lambda one: CandidateRef.model_validate(one).candidate,
    "evaluate": _evaluated,
    "promote": lambda one: PromotionRef.model_validate(one).sentence,
    "score": lambda one: f"{ScoresRef.model_validate(one).rows:,} rows",
    "monitor": _monitored,
}
