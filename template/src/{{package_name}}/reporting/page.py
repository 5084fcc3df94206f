"""The report of a run: one HTML page that needs nothing else to be read."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from ..core import storage, tracking
from ..core.records import Importance, read_checked_partitions
from ..core.redact import redact
from .summary import Summary

TEMPLATE = Path(__file__).with_name("page.html")


def render(summary: Summary, primary: str, plots: Mapping[str, str]) -> str:
    """Return the page as HTML; everything it shows comes from the records and their files.

    Args:
        summary: The run.
        primary: Name of the metric that compares models.
        plots: SVG elements and tables of the challenger's predictions, by title.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": _number, "duration": _duration}
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    run, records = summary.run, summary.records
    engine_url = ""
    with contextlib.suppress(Exception):  # an unreachable server must not cost the page
        engine_url = tracking.engine_url(run)
    return page.render(
        project=run.settings.project.name,
        run=run,
        state=_state(summary),
        summary=summary,
        results=summary.results,
        engine_url=engine_url,
        primary=primary,
        plots=plots,
        importance=_importance(summary),
        max_psi=run.settings.monitoring.max_psi,
        partitions=read_checked_partitions(run, records),
        records=records,
        run_seconds=_run_seconds(summary),
        configuration=redact(json.dumps(run.settings.model_dump(mode="json"), indent=2)),
        commit=tracking.git_tags(),
    )


def _state(summary: Summary) -> tuple[str, str, str]:
    """Return the color of the run (good, neutral, warning or bad), its end, and a sentence."""
    results = summary.results
    promotion, scores = results.promote, results.score
    if summary.violations:
        return "bad", "Data rejected", "Nothing was trained, scored or promoted."
    if summary.failures:
        return "bad", "Failed", f"In {', '.join(summary.failures)}."
    if promotion:
        if promotion.promoted:
            return "good", "Promoted", promotion.sentence
        kind = "neutral" if promotion.champion_version else "warning"
        return kind, "Not promoted", promotion.sentence
    text = f"{scores.rows:,} rows scored by version {scores.model_version}." if scores else ""
    if results.monitor and results.monitor.retrain:
        return "warning", "A new model is needed", text
    return "good", "Scored", text


def _importance(summary: Summary) -> dict[str, float]:
    if summary.results.evaluate is None:
        return {}
    text = (storage.path_of(summary.results.evaluate.uri) / "importance.json").read_text()
    return Importance.model_validate_json(text).features


def _run_seconds(summary: Summary) -> float:
    """Return the time from the start of the first stage to the end of the last one, above 0."""
    records = summary.records
    ends = [(one.started - records[0].started).total_seconds() + one.seconds for one in records]
    return max(ends, default=0.0) or 1.0


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4f}"


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{timedelta(seconds=round(seconds))}"
