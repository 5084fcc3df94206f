"""report: what became of a run, as one page that needs nothing else to be read."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from upath import UPath

from ..core import optional, storage, tracking
from ..core.answers import MONITORING
from ..core.logs import get_logger
from ..core.redact import redact
from ..core.refs import (
    CandidateRef,
    DatasetRef,
    EvaluationRef,
    FeaturesRef,
    MonitorRef,
    PromotionRef,
    Ref,
    ReportRef,
    Run,
    ScoresRef,
)
from ..core.settings import load_settings
from ..core.stage import StageRecord, read_checked_days, read_records, stage
from ..domain import problem

log = get_logger(__name__)

TEMPLATE = Path(__file__).parents[1] / "reporting" / "page.html"
# The stage that completes each pipeline: a run without its record did not do its work.
LAST_STAGE = {"training": "promote", "inference": "monitor"}
SHOWN_INVALID_ROWS = 10

R = TypeVar("R", bound=Ref)


@dataclass(frozen=True)
class Failure:
    """A stage that failed; without an error when it left no record of how."""

    label: str
    error: str = ""

    @property
    def problems(self) -> list[str]:
        """The broken limits, when the error is that data was rejected."""
        if not self.error.startswith("DataRejected"):
            return []
        return [line[4:] for line in self.error.splitlines() if line.startswith("  - ")]


@dataclass(frozen=True)
class State:
    """The run in a word and a sentence; `kind` is good, neutral, warning or bad."""

    kind: str
    title: str
    text: str


@stage
def report(run: Run, failed: list[str] | None = None) -> ReportRef:
    """Write the page of a finished run and close its MLflow run.

    The page is written before MLflow is called, so that a run that failed because of MLflow has
    one too.

    Args:
        run: The run, whatever became of it.
        failed: What the engine knows to have failed; a killed process leaves no record.
    """
    records = [record for record in read_records(run.key) if record.stage != "report"]
    failures = find_failures(run, records, failed or [])
    url = tracking.run_url(run.tracking_run_id)
    html = render(run, records, failures, url)
    path = storage.artifact_path("reports", run.pipeline, f"{run.partition}", f"{run.key}.html")
    uri = storage.write_text(path, html)
    unfinished = ["report"]
    try:
        tracking.log_metrics(run.tracking_run_id, stage_metrics(records))
        tracking.log_report(run, html)
        tracking.finish(run, succeeded=not failures)
        unfinished = []
    finally:
        labels = [failure.label for failure in failures]
        problems = sum(len(failure.problems) for failure in failures)
        _push_metrics(run, records, labels + unfinished, problems, url)
    log.info("report: %s", uri)
    return ReportRef(
        uri=uri,
        tracking_url=url,
        succeeded=not failures,
        failed_stages=tuple(failure.label for failure in failures),
    )


def find_failures(run: Run, records: list[StageRecord], failed: list[str]) -> list[Failure]:
    """Return what failed: stages whose record holds an error, then what only the engine knows of.

    Names of the engine may carry a group and a number, like `window.train_0`.
    """
    failures = [
        Failure(record.label, redact(record.error))
        for record in records
        if record.error is not None
    ]
    known = {record.stage for record in records if record.error is not None}
    for name in failed:
        if re.sub(r"_\d+$", "", name.rpartition(".")[2]) not in known:
            failures.append(Failure(name))
    last = LAST_STAGE[run.pipeline]
    if not failures and all(record.stage != last for record in records):
        failures.append(Failure(last))
    return failures


def stage_metrics(records: list[StageRecord]) -> dict[str, float]:
    """Return the seconds of each stage, and the rows of those that handled rows."""
    metrics = {f"seconds.{record.label}": record.seconds for record in records}
    for record in records:
        if record.result is not None and "rows" in record.result:
            metrics[f"rows.{record.label}"] = record.result["rows"]
    return metrics


def render(run: Run, records: list[StageRecord], failures: list[Failure], url: str) -> str:
    """Return the page as HTML; everything it shows comes from the records and their files."""
    from jinja2 import Environment, StrictUndefined

    settings = load_settings()
    evaluation = _latest(records, "evaluate", EvaluationRef)
    promotion = _latest(records, "promote", PromotionRef)
    scores = _latest(records, "score", ScoresRef)
    monitor = _latest(records, "monitor", MonitorRef)
    decided = promotion or evaluation or monitor
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": _number, "duration": _duration, "cell": _cell}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        project=settings.project.name,
        run=run,
        state=_state(run, failures, evaluation, promotion, scores, monitor),
        failures=failures,
        tracking_url=url,
        engine_url=_engine_url(run),
        reasons=[_split_verdict(reason) for reason in decided.reasons] if decided else [],
        evaluation=evaluation,
        monitor=monitor,
        candidates=_candidates(records, evaluation),
        primary=problem.metrics.PRIMARY,
        plots=_plots(evaluation),
        importance=_read_json(evaluation, "importance.json") or {},
        drift=_drift(evaluation, monitor),
        max_psi=settings.monitoring.max_psi,
        data=_data(records),
        days=_checked_days(run, records),
        shown_invalid_rows=SHOWN_INVALID_ROWS,
        timeline=_timeline(records),
        configuration=redact(json.dumps(settings.model_dump(mode="json"), indent=2)),
        commit=tracking.git_tags(),
    )


def _push_metrics(
    run: Run, records: list[StageRecord], failed: list[str], problems: int, url: str
) -> None:
    # The module is there for those who watch their runs only.
    if MONITORING == "prometheus":
        optional.load("reporting.prometheus").push(run, records, failed, problems, url)


def _engine_url(run: Run) -> str:
    try:
        return tracking.engine_url(run)
    except Exception as error:  # an unreachable server must not cost the page
        log.warning("no link to the engine in the report: %s", redact(str(error)))
        return ""


def _latest(records: list[StageRecord], name: str, kind: type[R]) -> R | None:
    for record in reversed(records):
        if record.stage == name and record.result is not None:
            return kind.model_validate(record.result)
    return None


def _state(
    run: Run,
    failures: list[Failure],
    evaluation: EvaluationRef | None,
    promotion: PromotionRef | None,
    scores: ScoresRef | None,
    monitor: MonitorRef | None,
) -> State:
    problems = sum(len(failure.problems) for failure in failures)
    if problems:
        done = "trained or promoted" if run.pipeline == "training" else "scored"
        limits = "a limit is" if problems == 1 else f"{problems} limits are"
        return State("bad", "Data rejected", f"Because {limits} broken, nothing was {done}.")
    if failures:
        return State("bad", "Failed", f"In {', '.join(failure.label for failure in failures)}.")
    if promotion and evaluation and promotion.promoted:
        former = promotion.previous_version
        name, version = evaluation.candidate.candidate, promotion.champion_version
        text = f"{name} is champion, as version {version}"
        return State("good", "Promoted", f"{text}; version {former} was." if former else f"{text}.")
    if promotion and promotion.champion_version:
        return State("neutral", "Champion kept", f"Version {promotion.champion_version} stays.")
    if promotion:
        return State("warning", "Not promoted", "There is no champion yet.")
    text = f"{scores.rows:,} rows scored by version {scores.model_version}." if scores else ""
    if monitor and monitor.retrain:
        return State("warning", "A new model is needed", text)
    return State("good", "Scored", text)


def _split_verdict(reason: str) -> tuple[str, str]:
    """Split "passed: …", "failed: …" or "note: …" into verdict and sentence."""
    verdict, colon, sentence = reason.partition(": ")
    if colon and verdict.split()[-1] in ("passed", "failed", "note"):
        return verdict.split()[-1], sentence
    return "", reason


def _candidates(
    records: list[StageRecord], evaluation: EvaluationRef | None
) -> list[dict[str, Any]]:
    chosen = evaluation.candidate.fingerprint if evaluation else None
    rows = []
    for record in records:
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


def _read_json(evaluation: EvaluationRef | None, name: str) -> Any:
    return json.loads((UPath(evaluation.uri) / name).read_text()) if evaluation else None


def _plots(evaluation: EvaluationRef | None) -> dict[str, str]:
    if evaluation is None:
        return {}
    scored = storage.read_parquet(str(UPath(evaluation.uri) / "predictions.parquet"))
    return problem.metrics.plots(scored["target"].to_numpy(), scored["prediction"].to_numpy())


def _drift(evaluation: EvaluationRef | None, monitor: MonitorRef | None) -> list[Any]:
    from ..ml.drift import FeatureDrift

    rows = json.loads(UPath(monitor.uri).read_text()) if monitor else None
    rows = rows or _read_json(evaluation, "drift.json") or []
    return [FeatureDrift.model_validate(row) for row in rows]


def _data(records: list[StageRecord]) -> list[tuple[str, int]]:
    raw = _latest(records, "ingest", DatasetRef)
    valid = _latest(records, "validate", DatasetRef)
    features = _latest(records, "featurize", FeaturesRef)
    scores = _latest(records, "score", ScoresRef)
    numbers: list[tuple[str, int]] = []
    if raw:
        numbers.append(("rows read", raw.rows))
    if valid:
        numbers += [("valid", valid.rows)]
        numbers += [("quarantined", int(valid.metrics.get("rows_quarantined", 0)))]
    if features and features.holdout_from:
        numbers += [("to learn from", features.rows - features.holdout_rows)]
        numbers += [(f"held out from {features.holdout_from}", features.holdout_rows)]
    if scores:
        numbers.append(("scored", scores.rows))
    return numbers


def _checked_days(run: Run, records: list[StageRecord]) -> list[dict[str, Any]]:
    """Return what the validate stage wrote about days that have invalid rows or problems."""
    days = read_checked_days(run, records)
    return [day for day in days if day["quarantined"] or day["problems"]]


def _timeline(records: list[StageRecord]) -> list[dict[str, Any]]:
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
