"""What a person sees of a run's result in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..core import storage
from ..core.outcomes import STAGES
from ..core.records import StageRecord, read_records
from .progress import in_line, of_step
from .summary import ORDER, Results


def print_result(console: Console, run_key: str) -> None:
    """Show what became of a run: its result, why it failed, and where to read more.

    Addresses are in one piece, to be opened.
    """
    records = read_records(run_key)
    results = Results.of(records)
    table = _table(run_key, records, results)
    console.print(table if table.rows else run_key, highlight=False)
    for line in _failures(run_key, records, results):
        console.print(line, soft_wrap=True, highlight=False)
    for name, place in _places(results):
        console.print(f"{name:<12} {place}", markup=False, soft_wrap=True, highlight=False)


def _table(run_key: str, records: Sequence[StageRecord], results: Results) -> Table:
    table = Table(box=box.ROUNDED, show_header=False, title=run_key)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    if data := results.data:
        for name, found in {"look at": data.warnings, "left out": data.left_out}.items():
            if found:
                some = "\n".join(map(str, found[:10])) + ("\n…" if len(found) > 10 else "")
                table.add_row(name, f"[yellow]{escape(some)}[/]")
    if evaluation := results.evaluate:
        table.add_row("challenger", evaluation.candidate.candidate)
        table.add_row("on the holdout", in_line(evaluation.metrics))
    if promotion := results.promote:
        done = "[green]promoted[/]" if promotion.promoted else "not promoted"
        table.add_row("champion", f"{done}: {promotion.sentence}")
        table.add_row("because", escape("\n".join(map(str, promotion.verdict.reasons))))
    if scores := results.score:
        table.add_row("scored", f"{scores.rows} rows by version {scores.model_version}")
    if monitoring := results.monitor:
        table.add_row("drifted", ", ".join(monitoring.drift.drifted) or "none")
        table.add_row("live", in_line(monitoring.live_metrics) or "nothing yet")
        why = escape("\n".join(map(str, monitoring.reasons)))
        table.add_row("retrain", f"[yellow]yes[/]: {why}" if monitoring.retrain else "no")
    for record in records:
        if record.stage not in STAGES:
            done = "[red]failed[/]" if record.error else escape(of_step(record.result or {}))
            table.add_row(record.label, done)
    return table


def _failures(run_key: str, records: Sequence[StageRecord], results: Results) -> Iterator[str]:
    """Yield each stage that failed and why, and then what was not run because of it."""
    failed = [record for record in records if record.error and record.stage != "report"]
    for record in failed:
        assert record.error is not None
        of = f" for {record.partition}" if record.partition else ""
        yield f"[red]✗ {record.label} failed{escape(of)}[/]"
        yield escape(f"  {record.error}")
        if record.error.location:
            yield escape(f"  {record.error.location}")
            yield escape(record.error.code)
    lost = results.report.failed_stages if results.report else ()
    for label in lost:
        if all(record.label != label and record.stage != label for record in failed):
            yield f"[red]✗ {escape(label)} failed[/] and left no record: it was killed"
    if failed or lost:
        done = {record.stage for record in records}
        order = ORDER[run_key.partition("-")[0]]
        if missing := [stage for stage in order if stage not in done]:
            yield f"  not run: {', '.join(missing)}"


def _places(results: Results) -> Iterator[tuple[str, str]]:
    """Yield where to read more, with what is found there."""
    if results.score:
        yield "predictions", f"{storage.path_of(results.score.uri)}"
    if results.report:
        yield "report", f"{storage.path_of(results.report.uri)}"
        yield "MLflow", f"{results.report.tracking_url}  (uv run poe up)"
