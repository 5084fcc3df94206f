"""The report: a page for every outcome, that needs nothing else and trusts no text it shows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sandbox
from example.domain import problem
from flight_delays.core import storage, tracking
from flight_delays.core.errors import DataRejected
from flight_delays.core.outcomes import DriftVerdict, GateResult, Note, Verdict, Violation
from flight_delays.core.records import Importance, StageError, StageRecord, ValidationReport
from flight_delays.core.refs import (
    CandidateRef,
    DatasetRef,
    EvaluationRef,
    FeaturesRef,
    MonitorRef,
    Pipeline,
    PromotionRef,
    ReportRef,
    Run,
    ScoresRef,
)
from flight_delays.ml.drift import DriftTable, FeatureDrift
from flight_delays.stages.report import report
from flight_delays.stages.start import start
from pydantic import BaseModel

HOSTILE = "<script>alert('&')</script>"
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """A parsed page: its visible text, its links; and tags that are not closed make it fail."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)


@pytest.fixture
def home(tmp_path: Path, tables: Path) -> Iterator[Path]:
    root = sandbox.make(tmp_path / "home", tables)
    with sandbox.enter(root):
        yield root


@pytest.fixture
def run(home: Path) -> Run:
    return begin("training")


def begin(pipeline: Pipeline) -> Run:
    return start(pipeline, sandbox.PARTITION, key=f"{pipeline}-1")


def keep(
    run: Run, label: str, result: BaseModel | None = None, error: StageError | None = None
) -> None:
    """Write the record that a stage would have left."""
    folder = storage.artifact_path("runs", run.key)
    count = len(list(folder.iterdir())) if folder.exists() else 0
    record = StageRecord(
        stage=label.partition("-")[0],
        label=label,
        started=datetime(2013, 2, 1, tzinfo=UTC) + timedelta(seconds=count),
        seconds=1.5,
        result=result.model_dump(mode="json") if result else None,
        error=error,
    )
    storage.write_text(folder / f"{label}.json", record.model_dump_json())


def read(done: ReportRef) -> Page:
    return Page(storage.path_of(done.uri).read_text(encoding="utf-8"))


def kept_with_mlflow(run: Run) -> str:
    return sandbox.read_artifact(run.tracking_run_id, "report.html")


def status(run: Run) -> str:
    return str(tracking.client().get_run(run.tracking_run_id).info.status)


def dataset(**changes: Any) -> DatasetRef:
    return DatasetRef(uri="unused", rows=1_200, fingerprint="raw").model_copy(update=changes)


def evaluation(run: Run, **changes: Any) -> EvaluationRef:
    """Write the files of an evaluation and return its reference."""
    candidate = CandidateRef(
        candidate="linear",
        tracking_run_id="child",
        model_uri="models:/m-1",
        score=0.61,
        params={"C": 0.123456, "name": HOSTILE},
        fingerprint="abc",
        trained_until=run.partition,
        reference_uri="unused",
    )
    folder = storage.artifact_path("evaluations", "abc")
    likely = pl.Series([n / 100 for n in range(100)])
    scored = pl.DataFrame(
        {
            "target": [0, 1, 1, 0] * 25,
            "prediction": [0, 1] * 50,
            "probability_0": 1 - likely,
            "probability_1": likely,
        }
    )
    storage.write_parquet(folder / "predictions.parquet", scored)
    importance = Importance(features={"distance": 0.02, "temp": -0.001})
    storage.write_model(folder / "importance.json", importance)
    storage.write_text(folder / "drift.json", drift_json())
    values: dict[str, Any] = {
        "uri": str(folder),
        "features": FeaturesRef(uri="unused", rows=1, fingerprint="f", dataset_fingerprint="d"),
        "candidate": candidate,
        "metrics": {problem.metrics.PRIMARY: 0.6, "other": 1.0},
        "verdict": Verdict(decision="promote", gates=(gate(0.6),)),
    }
    return EvaluationRef(**(values | changes))


def gate(limit: float) -> GateResult:
    """Return how a challenger of 0.6 fares at a gate."""
    return GateResult(metric="metric", value=0.6, bound="min", limit=limit, passed=limit <= 0.6)


def failure(message: str) -> StageError:
    return StageError(kind="OSError", message=message)


def drift_verdict(*drifted: str) -> DriftVerdict:
    return DriftVerdict(drifted=drifted, stable_features=2, max_psi=0.1, exceeded=bool(drifted))


def drift_json() -> str:
    row = FeatureDrift(
        feature="pressure", kind="numeric", psi=2.345, test="ks", statistic=None, p_value=1e-9,
        reference_null_share=0.125, current_null_share=0.5, drifted=True,
    )  # fmt: skip
    return DriftTable(features=(row,)).model_dump_json()


def test_a_promoted_challenger(run: Run) -> None:
    done = evaluation(run)
    keep(run, "ingest", dataset())
    keep(run, "validate", dataset(rows=1_150, metrics={"rows_quarantined": 50}))
    keep(run, "train-linear", done.candidate)
    keep(run, "train-xgboost", done.candidate.model_copy(update={"fingerprint": "other"}))
    keep(run, "evaluate", done)
    keep(
        run,
        "promote",
        PromotionRef(promoted=True, champion_version=3, previous_version=2, verdict=done.verdict),
    )

    result = report(run)

    page = read(result)
    assert result.succeeded
    assert result.failed_stages == ()
    for text in (
        "Promoted version 3 is champion; version 2 was",
        "passed metric 0.6000, at least 0.6 needed",
        "1,200 rows read 1,150 valid 50 quarantined",
        "C=0.1235",
        "distance 0.0200 temp -0.0010",
        "pressure 2.345 drifted KS – < 0.001 12.5 % 50.0 %",  # noqa: RUF001
        "train-xgboost 1.5 s",
        '"slug": "sandbox"',
        "this run",
    ):
        assert text in page.text
    assert page.text.count("challenger") >= 1
    assert "What went wrong" not in page.text
    assert page.tags.count("svg") == 4
    assert "Confusion matrix" in page.text


def test_mlflow_gets_the_page_the_times_and_the_rows(run: Run) -> None:
    keep(run, "ingest", dataset())
    keep(run, "promote", PromotionRef(
        promoted=False, champion_version=None, previous_version=None,
        verdict=Verdict(decision="keep"),
    ))  # fmt: skip

    result = report(run)

    metrics = tracking.client().get_run(run.tracking_run_id).data.metrics
    assert metrics["seconds.ingest"] == 1.5
    assert metrics["rows.ingest"] == 1_200
    assert kept_with_mlflow(run) == storage.path_of(result.uri).read_text()
    assert result.tracking_url == tracking.run_url(run.tracking_run_id)
    assert status(run) == "FINISHED"
    assert "Not promoted there is no champion yet" in read(result).text


def test_a_champion_that_was_kept(run: Run) -> None:
    primary = problem.metrics.PRIMARY
    verdict = Verdict(
        decision="keep",
        gates=(gate(0.5), gate(0.7)),
        notes=(Note(kind="champion_saw_holdout", until=sandbox.PARTITION),),
    )
    done = evaluation(run, champion_version=2, champion_metrics={primary: 0.7}, verdict=verdict)
    keep(run, "evaluate", done)
    keep(
        run,
        "promote",
        PromotionRef(promoted=False, champion_version=2, previous_version=1, verdict=verdict),
    )

    page = read(report(run))

    assert "Not promoted version 2 stays champion" in page.text
    assert f"{primary} 0.6000 0.7000 -0.1000" in page.text
    assert "other 1 – –" in page.text  # noqa: RUF001
    assert "failed metric 0.6000, at least 0.7 needed passed metric 0.6000, at least" in page.text
    assert f"note the champion learned from partitions up to {sandbox.PARTITION}" in page.text


def test_a_failed_stage(run: Run) -> None:
    keep(run, "ingest", dataset())
    keep(run, "train-linear", error=failure(f"no space left {HOSTILE}"))

    result = report(run, failed=["train", "select"])

    page = read(result)
    assert not result.succeeded
    # The engine's train is the record's train-linear: named once, with its error.
    assert result.failed_stages == ("train-linear", "select")
    assert status(run) == "FAILED"
    assert "Failed In train-linear, select." in page.text
    assert f"OSError: no space left {HOSTILE}" in page.text
    assert "never started: select" in page.text


def test_rejected_data(run: Run) -> None:
    violations = [
        Violation(check="null_target", detail=HOSTILE),
        Violation(check="too_few_rows", detail="3"),
    ]
    error = DataRejected("2013-01-28", violations, "report")
    keep(run, "ingest", dataset())
    keep(run, "validate", error=StageError.of(error))
    day = {
        "partition": "2013-01-28",
        "rows": 1_200,
        "quarantined": 7,
        "violations": violations,
        "failed_checks": {HOSTILE: 7},
        "first_invalid_rows": [
            {"carrier": HOSTILE, "temp": 0.1 + 0.2, "failed_checks": ["a", "b"]}
        ],
    }
    days = [day, day | {"quarantined": 0, "violations": []}]
    path = storage.artifact_path("validation", f"{run.partition}", "raw.json")
    storage.write_model(path, ValidationReport.model_validate({"partitions": days}))

    result = report(run)

    page = read(result)
    assert result.failed_stages == ("validate",)
    assert "Data rejected Nothing was trained, scored or promoted." in page.text
    assert f"null_target {HOSTILE} too_few_rows 3" in page.text
    assert f"2013-01-28 1,200 7 {HOSTILE} 7" in page.text
    assert f"{HOSTILE} 0.3 a; b" in page.text


def test_a_run_that_left_no_record_has_a_page_and_is_not_a_success(run: Run) -> None:
    result = report(run)

    assert result.failed_stages == ("promote",)
    assert "never started: promote" in read(result).text


def test_a_scored_partition(home: Path) -> None:
    run = begin("inference")
    uri = storage.write_text(storage.artifact_path("monitoring", "drift.json"), drift_json())
    keep(run, "score", ScoresRef(uri="unused", rows=850, model_version=4, fingerprint="abc"))
    keep(
        run,
        "monitor",
        MonitorRef(uri=uri, drift=drift_verdict(), live_metrics={"other": 0.5}, retrain=False),
    )

    page = read(report(run))

    assert "Scored 850 rows scored by version 4." in page.text
    assert "other 0.5000" in page.text
    assert "No sign that a new model is needed." in page.text
    assert "pressure 2.345 drifted" in page.text


def test_a_partition_that_drifted(home: Path) -> None:
    run = begin("inference")
    uri = storage.write_text(storage.artifact_path("monitoring", "drift.json"), drift_json())
    keep(
        run,
        "monitor",
        MonitorRef(uri=uri, drift=drift_verdict("pressure"), live_metrics={}, retrain=True),
    )

    page = read(report(run))

    assert "A new model is needed" in page.text
    assert "1 of 2 stable features drifted: pressure" in page.text
    assert "No labels for stored predictions yet." in page.text


def test_the_page_loads_nothing_and_runs_nothing(run: Run) -> None:
    keep(run, "evaluate", evaluation(run))
    keep(run, "promote", error=failure(HOSTILE))

    result = report(run)

    page, html = read(result), storage.path_of(result.uri).read_text()
    assert [link for link in page.links if not link.startswith("#")] == [result.tracking_url]
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert "@import" not in html
    assert "url(http" not in html


def test_secrets_in_an_error_stay_secret(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_PASSWORD", "hunter2hunter2")
    keep(run, "ingest", error=StageError.of(OSError("s3://me:hunter2hunter2@bucket refused")))

    result = report(run)

    assert "hunter2" not in storage.path_of(result.uri).read_text()


def test_reporting_again_gives_the_same_page(run: Run) -> None:
    keep(run, "evaluate", evaluation(run))
    first = storage.path_of(report(run).uri).read_bytes()

    assert storage.path_of(report(run).uri).read_bytes() == first


def test_without_mlflow_the_page_is_written_all_the_same(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(run, "ingest", error=failure("ConnectionError: MLflow is away"))

    def away() -> None:
        raise ConnectionError("MLflow is away")

    monkeypatch.setattr(tracking, "client", away)
    with pytest.raises(ConnectionError):
        report(run)

    (written,) = storage.artifact_path("reports").rglob("*.html")
    assert "ConnectionError: MLflow is away" in Page(written.read_text()).text
