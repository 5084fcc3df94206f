"""What a person sees of a run in the terminal: its stages as they go, and its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..core import storage
from ..core.logs import console
from ..core.outcomes import STAGES
from ..core.records import StageRecord, read_records
from ..core.refs import StepRef
from ..core.stage import listeners
from .summary import Results


class StageProgress:
    """Shows one line a stage while a pipeline runs in this process; nothing without a terminal."""

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console(),
            disable=not console().is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> StageProgress:
        listeners.append(self._on_stage)
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()
        listeners.remove(self._on_stage)

    def _on_stage(self, label: str, record: StageRecord | None) -> None:
        if record is None:
            self._tasks[label] = self._progress.add_task(label, total=1)
        elif record.error is None:
            self._progress.update(self._tasks[label], completed=1)
        else:
            self._progress.update(self._tasks[label], description=f"[red]{label} failed[/]")
            self._progress.stop_task(self._tasks[label])


def result_table(run_key: str) -> Table:
    """Return the result of a run and where to look, from the records of its stages."""
    table = Table(box=box.ROUNDED, show_header=False, title=run_key)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    records = read_records(run_key)
    results = Results.of(records)
    if data := results.data:
        for name, found in {"look at": data.warnings, "left out": data.left_out}.items():
            if found:
                some = "\n".join(map(str, found[:10])) + ("\n…" if len(found) > 10 else "")
                table.add_row(name, f"[yellow]{escape(some)}[/]")
    if evaluation := results.evaluate:
        table.add_row("challenger", evaluation.candidate.candidate)
        table.add_row("on the holdout", _in_line(evaluation.metrics))
    if promotion := results.promote:
        done = "[green]promoted[/]" if promotion.promoted else "not promoted"
        table.add_row("champion", f"{done}: {promotion.sentence}")
        table.add_row("because", escape("\n".join(map(str, promotion.verdict.reasons))))
    if scores := results.score:
        table.add_row("scored", f"{scores.rows} rows by version {scores.model_version}")
        table.add_row("predictions", f"{storage.path_of(scores.uri)}")
    if monitoring := results.monitor:
        table.add_row("drifted", ", ".join(monitoring.drift.drifted) or "none")
        table.add_row("live", _in_line(monitoring.live_metrics) or "nothing yet")
        why = escape("\n".join(map(str, monitoring.reasons)))
        table.add_row("retrain", f"[yellow]yes[/]: {why}" if monitoring.retrain else "no")
    for record in records:
        if record.stage not in STAGES:
            done = "[red]failed[/]" if record.error else _shown(record.result)
            table.add_row(record.label, done)
    if report := results.report:
        if report.failed_stages:
            table.add_row("failed", f"[red]{', '.join(report.failed_stages)}[/]")
        table.add_row("report", f"{storage.path_of(report.uri)}")
        table.add_row("MLflow", f"{report.tracking_url}  (uv run poe up)")
    return table


def _shown(reference: Mapping[str, Any] | None) -> str:
    """Return in one line what a step of the team's own returned."""
    result = StepRef.model_validate(reference).result.items()
    return escape(", ".join(f"{name} {value}" for name, value in result)) or "done"


def _in_line(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
