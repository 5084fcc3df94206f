"""The report of a run: one HTML page that needs nothing else to be read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from upath import UPath

from ..core import tracking
from ..core.logs import get_logger
from ..core.outcomes import CheckedPartition, DriftVerdict, GateResult, Note
from ..core.records import Importance, StageRecord, read_checked_partitions
from ..core.redact import redact
from ..core.refs import CandidateRef, DatasetRef, FeaturesRef, Run
from ..ml.drift import DriftTable, FeatureDrift
from .summary import Summary

log = get_logger(__name__)

TEMPLATE = Path(__file__).with_name("page.html")
SHOWN_INVALID_ROWS = 10


@dataclass(frozen=True)
class State:
    """The run in a word and a sentence; `kind` is good, neutral, warning or bad."""

    kind: str
    title: str
    text: str


def render(summary: Summary, primary: str, plots: Mapping[str, str]) -> str:
    """Return the page as HTML; everything it shows comes from the records and their files.

    Args:
        summary: The run.
        primary: Name of the metric that compares models.
        plots: SVG elements of the challenger's predictions, by title.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": _number, "duration": _duration, "cell": _cell}
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    settings = summary.run.settings
    return page.render(
        project=settings.project.name,
        run=summary.run,
        state=_state(summary),
        failures=summary.failures,
        tracking_url=summary.tracking_url,
        engine_url=_engine_url(summary.run),
        reasons=_reasons(summary),
        evaluation=summary.evaluation,
        monitor=summary.monitoring,
        candidates=_candidates(summary),
        primary=primary,
        plots=plots,
        importance=_importance(summary),
        drift=_drift(summary),
        max_psi=settings.monitoring.max_psi,
        data=_data(summary),
        days=_days_to_show(summary),
        shown_invalid_rows=SHOWN_INVALID_ROWS,
        timeline=_timeline(summary.records),
        configuration=redact(json.dumps(settings.model_dump(mode="json"), indent=2)),
        commit=tracking.git_tags(),
    )


def _engine_url(run: Run) -> str:
    try:
        return tracking.engine_url(run)
    except Exception as error:  # an unreachable server must not cost the page
        log.warning("no link to the engine in the report: %s", redact(str(error)))
        return ""


def _state(summary: Summary) -> State:
    if summary.violations:
        return _rejected(summary)
    if summary.failures:
        return State("bad", "Failed", f"In {', '.join(summary.failed_stages)}.")
    if summary.promotion:
        return _decided(summary)
    scores, monitoring = summary.scores, summary.monitoring
    text = f"{scores.rows:,} rows scored by version {scores.model_version}." if scores else ""
    if monitoring and monitoring.retrain:
        return State("warning", "A new model is needed", text)
    return State("good", "Scored", text)


def _rejected(summary: Summary) -> State:
    done = "trained or promoted" if summary.run.pipeline == "training" else "scored"
    count = len(summary.violations)
    limits = "a limit is" if count == 1 else f"{count} limits are"
    return State("bad", "Data rejected", f"Because {limits} broken, nothing was {done}.")


def _decided(summary: Summary) -> State:
    promotion, evaluation = summary.promotion, summary.evaluation
    if promotion is None or not promotion.champion_version:
        return State("warning", "Not promoted", "There is no champion yet.")
    version, previous = promotion.champion_version, promotion.previous_version
    if not promotion.promoted or evaluation is None:
        return State("neutral", "Champion kept", f"Version {version} stays.")
    text = f"{evaluation.candidate.candidate} is champion, as version {version}"
    return State("good", "Promoted", f"{text}; version {previous} was." if previous else f"{text}.")


def _reasons(summary: Summary) -> Sequence[GateResult | Note | DriftVerdict]:
    decided = summary.promotion or summary.evaluation
    if decided:
        return decided.verdict.reasons
    return summary.monitoring.reasons if summary.monitoring else []


def _candidates(summary: Summary) -> list[dict[str, Any]]:
    evaluation = summary.evaluation
    chosen = evaluation.candidate.fingerprint if evaluation else None
    rows = []
    for record in summary.records:
        if record.stage != "train" or record.result is None:
            continue
        candidate = CandidateRef.model_validate(record.result)
        rows.append(
            {
                "ref": candidate,
                "seconds": record.seconds,
                "chosen": candidate.fingerprint == chosen,
            }
        )
    return rows


def _importance(summary: Summary) -> dict[str, float]:
    if summary.evaluation is None:
        return {}
    text = (UPath(summary.evaluation.uri) / "importance.json").read_text()
    return Importance.model_validate_json(text).features


def _drift(summary: Summary) -> tuple[FeatureDrift, ...]:
    if summary.monitoring:
        path = UPath(summary.monitoring.uri)
    elif summary.evaluation:
        path = UPath(summary.evaluation.uri) / "drift.json"
    else:
        return ()
    return DriftTable.model_validate_json(path.read_text()).features


def _data(summary: Summary) -> list[tuple[str, int]]:
    raw = summary.latest("ingest", DatasetRef)
    valid = summary.latest("validate", DatasetRef)
    features = summary.latest("featurize", FeaturesRef)
    numbers: list[tuple[str, int]] = []
    if raw:
        numbers.append(("rows read", raw.rows))
    if valid:
        numbers += [("valid", valid.rows)]
        numbers += [("quarantined", int(valid.metrics.get("rows_quarantined", 0)))]
    if features and features.holdout_from:
        numbers += [("to learn from", features.rows - features.holdout_rows)]
        numbers += [(f"held out from {features.holdout_from}", features.holdout_rows)]
    if summary.scores:
        numbers.append(("scored", summary.scores.rows))
    return numbers


def _days_to_show(summary: Summary) -> list[CheckedPartition]:
    """Return what was validated and has invalid rows or violations."""
    days = read_checked_partitions(summary.run, summary.records)
    return [day for day in days if day.quarantined or day.violations]


def _timeline(records: Sequence[StageRecord]) -> list[dict[str, Any]]:
    """Return each stage's bar: where it starts and how long it is, in percent of the run."""
    if not records:
        return []
    begin = records[0].started
    ends = [record.started + timedelta(seconds=record.seconds) for record in records]
    total = max((max(ends) - begin).total_seconds(), 0.001)
    return [
        {
            "record": record,
            "left": 100 * (record.started - begin).total_seconds() / total,
            "width": 100 * record.seconds / total,
        }
        for record in records
    ]


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4f}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(str(item) for item in value)
    if value is None:
        return "null"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
