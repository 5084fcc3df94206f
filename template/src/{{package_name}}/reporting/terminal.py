"""What a person sees of a run in the terminal: its stages as they go, and its result."""

from __future__ import annotations

from types import TracebackType

from rich import box
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..core.logs import console
from ..core.records import StageRecord, read_records
from ..core.refs import EvaluationRef, MonitorRef, PromotionRef, ReportRef
from ..core.stage import listeners


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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
    for record in read_records(run_key):
        if record.result is None:
            continue
        for name, value in _rows(record.stage, record.result):
            table.add_row(name, value)
    return table


def _rows(stage: str, result: dict[str, object]) -> list[tuple[str, str]]:
    if stage == "evaluate":
        evaluation = EvaluationRef.model_validate(result)
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in evaluation.metrics.items())
        return [("challenger", evaluation.candidate.candidate), ("on the holdout", metrics)]
    if stage == "promote":
        promotion = PromotionRef.model_validate(result)
        if promotion.promoted:
            state = f"[green]promoted: version {promotion.champion_version} is champion[/]"
        elif promotion.champion_version:
            state = f"kept: version {promotion.champion_version} stays champion"
        else:
            state = "[yellow]not promoted, and there is no champion yet[/]"
        return [("champion", state), ("because", "\n".join(map(str, promotion.verdict.reasons)))]
    if stage == "score":
        return [("scored", f"{result['rows']} rows by version {result['model_version']}"),
                ("predictions", str(result["uri"]))]  # fmt: skip
    if stage == "monitor":
        monitoring = MonitorRef.model_validate(result)
        live = ", ".join(f"{name} {value:.4f}" for name, value in monitoring.live_metrics.items())
        drifted = ", ".join(monitoring.drift.drifted) or "none"
        why = "\n".join(map(str, monitoring.reasons))
        retrain = f"[yellow]yes[/]: {why}" if monitoring.retrain else "no"
        return [
            ("drifted", drifted),
            ("live", live or "no labels yet"),
            ("retrain", retrain),
        ]
    if stage == "report":
        report = ReportRef.model_validate(result)
        rows = [("report", report.uri), ("MLflow", f"{report.tracking_url}  (uv run poe up)")]
        failed = ", ".join(report.failed_stages)
        return [("failed", f"[red]{failed}[/]"), *rows] if failed else rows
    return []
