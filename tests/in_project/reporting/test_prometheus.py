"""What runs push: their records' numbers, whatever became of them; and no harm when it fails."""

from __future__ import annotations

import json
import logging
import math
import re
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import sandbox
from example.domain.features import STABLE_FEATURES
from flight_delays import pipeline
from flight_delays.cli.app import app
from flight_delays.core import registry, storage, tracking
from flight_delays.core.errors import DataRejected
from flight_delays.core.registry import require_champion
from flight_delays.reporting import prometheus
from flight_delays.reporting.summary import Summary
from flight_delays.stages.report import report
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from receivers import free_port, silent_server, webhook
from sandbox import Trained
from typer.testing import CliRunner

DEPLOY = sandbox.CHECKOUT / "deploy"
VARIABLE = "PROMETHEUS_PUSHGATEWAY_URL"
# Pushed, and on purpose in no rule and on no dashboard.
NOT_SHOWN: set[str] = set()

# Labels and value of a metric's series.
Series = dict[tuple[str, ...], float]


class Gateway:
    """What the Pushgateway keeps: a push replaces the metrics it names in its group."""

    def __init__(self) -> None:
        self.url = ""
        self.groups: dict[str, dict[str, Series]] = {}

    def receive(self, path: str, body: str) -> None:
        """Take a push."""
        group = self.groups.setdefault(path, {})
        for family in text_string_to_metric_families(body):
            for name in {sample.name for sample in family.samples}:
                group[name] = {
                    tuple(sample.labels.values()): sample.value
                    for sample in family.samples
                    if sample.name == name
                }

    def of(self, pipeline: str) -> dict[str, Series]:
        """Return what is known of a pipeline."""
        return self.groups[f"/metrics/job/sandbox/pipeline/{pipeline}"]


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    """Run a gateway, and make it the one that runs push to."""
    kept = Gateway()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            kept.receive(self.path, self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield kept
    server.shutdown()
    server.server_close()


def one(series: Series) -> float:
    """Return the value of a metric without labels."""
    return series[()]


def by_label(series: Series) -> dict[str, float]:
    """Return the values of a metric with one label."""
    return {label: number for (label,), number in series.items()}


def test_a_training_run(
    trained: Trained, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, gateway.url)
    records = sandbox.records(trained.run)
    del records["report"]
    done = report(trained.run)

    pushed = gateway.of("training")
    about = (trained.run.key, f"{sandbox.PARTITION}", done.tracking_url)
    (labels,) = pushed["pipeline_last_run_info"]
    assert sorted(labels) == sorted(about)
    assert one(pushed["pipeline_last_run_succeeded"]) == 1
    ended = one(pushed["pipeline_last_run_timestamp_seconds"])
    assert one(pushed["pipeline_last_success_timestamp_seconds"]) == ended
    began = min(record.started for record in records.values()).timestamp()
    assert one(pushed["pipeline_last_run_duration_seconds"]) == pytest.approx(ended - began)
    assert by_label(pushed["pipeline_stage_duration_seconds"]) == {
        label: record.seconds for label, record in records.items()
    }
    assert by_label(pushed["pipeline_stage_failed"]) == dict.fromkeys(records, 0)
    rows = {label: (record.result or {}).get("rows") for label, record in records.items()}
    counted = {label: number for label, number in rows.items() if number is not None}
    assert by_label(pushed["pipeline_stage_rows"]) == counted
    assert {"ingest", "validate", "featurize"} <= set(counted)

    valid = records["validate"].result
    assert valid is not None
    assert one(pushed["pipeline_validation_rows"]) == valid["metrics"]["rows_read"]
    assert one(pushed["pipeline_validation_invalid_rows"]) == valid["metrics"]["rows_quarantined"]
    assert one(pushed["pipeline_validation_violations"]) == 0
    evaluation = records["evaluate"].result
    assert evaluation is not None
    assert by_label(pushed["pipeline_challenger_metric"]) == evaluation["metrics"]
    assert by_label(pushed["pipeline_baseline_metric"]) == evaluation["baseline_metrics"]
    assert by_label(pushed["pipeline_gate_min"]) == {sandbox.PRIMARY: -1e9}
    assert math.isnan(by_label(pushed["pipeline_gate_max"])[sandbox.PRIMARY])

    champion = require_champion()
    model = gateway.groups["/metrics/job/sandbox"]
    assert one(model["pipeline_champion_version"]) == int(champion.version)
    created = one(model["pipeline_champion_created_timestamp_seconds"])
    assert created == pytest.approx(champion.creation_timestamp / 1000)


@pytest.mark.usefixtures("tracked")
def test_a_champion_that_was_retired_is_shown_no_more(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, name = tracking.client(), registry.model_name()
    client.create_registered_model(name)
    client.create_model_version(name, "file:///no")
    registry.promote(1)
    monkeypatch.setenv(VARIABLE, gateway.url)
    prometheus.push_champion()
    shown = gateway.groups["/metrics/job/sandbox"]
    assert one(shown["pipeline_champion_version"]) == 1

    CliRunner().invoke(app, ["champion", "retire", "--yes"], catch_exceptions=False)
    assert math.isnan(one(shown["pipeline_champion_version"]))
    assert math.isnan(one(shown["pipeline_champion_created_timestamp_seconds"]))


def test_a_scored_day(trained: Trained, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, gateway.url)
    monkeypatch.setenv("PIPELINE_SCHEDULE__INFERENCE", "0 6 * * *")
    sandbox.clear_caches()
    records = sandbox.records(pipeline.execute("inference", sandbox.PARTITION))

    pushed = gateway.of("inference")
    scheduled = gateway.groups["/metrics/job/sandbox"]["pipeline_scheduled"]
    assert by_label(scheduled) == {"training": 0, "inference": 1}
    day = datetime.fromisoformat(f"{sandbox.PARTITION}T00:00:00+00:00").timestamp()
    assert one(pushed["pipeline_scored_partition_timestamp_seconds"]) == day
    assert one(pushed["pipeline_scored_partition_seconds"]) == 24 * 3600
    monitor, scores = records["monitor"].result, records["score"].result
    assert monitor is not None
    assert scores is not None
    assert by_label(pushed["pipeline_stage_rows"])["score"] == scores["rows"]
    drift = json.loads(storage.path_of(monitor["uri"]).read_text())["features"]
    assert by_label(pushed["pipeline_drift_psi"]) == {row["feature"]: row["psi"] for row in drift}
    share = len(monitor["drift"]["drifted"]) / len(STABLE_FEATURES)
    assert one(pushed["pipeline_drift_share"]) == share
    assert monitor["live_metrics"]
    assert by_label(pushed["pipeline_live_metric"]) == monitor["live_metrics"]


def test_rejected_data_leaves_the_last_success_as_it_was(
    trained: Trained, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, gateway.url)
    pipeline.execute("inference", sandbox.PARTITION)
    before = one(gateway.of("inference")["pipeline_last_success_timestamp_seconds"])
    monkeypatch.setenv("PIPELINE_VALIDATION__MIN_ROWS", "1000000")
    sandbox.clear_caches()

    with pytest.raises(DataRejected) as rejected:
        pipeline.execute("inference", sandbox.PARTITION)

    pushed = gateway.of("inference")
    assert one(pushed["pipeline_last_success_timestamp_seconds"]) == before
    assert one(pushed["pipeline_last_run_timestamp_seconds"]) > before
    assert one(pushed["pipeline_last_run_succeeded"]) == 0
    assert by_label(pushed["pipeline_stage_failed"]) == {"ingest": 0, "validate": 1}
    assert one(pushed["pipeline_validation_violations"]) == len(rejected.value.violations) > 0


def test_a_stage_that_only_the_engine_knows_to_have_failed(
    trained: Trained, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, gateway.url)

    report(trained.run, failed=["promoted"])

    assert by_label(gateway.of("training")["pipeline_stage_failed"])["promoted"] == 1


def test_what_is_gone_replaces_what_was(trained: Trained, tmp_path: Path) -> None:
    """A limit that was removed, and live metrics without labels, must not keep an alert firing."""
    trained.run.settings.gates.metrics.clear()
    drift = tmp_path / "drift.json"
    drift.write_text('{"features": []}')
    stable = {"drifted": [], "stable_features": 1, "max_psi": 0.1, "exceeded": False}
    monitored = {"uri": f"{drift}", "drift": stable, "live_metrics": {}, "retrain": False}
    record = sandbox.records(trained.run)["promote"]
    records = [record.model_copy(update={"stage": "monitor", "result": monitored})]

    summary = Summary(trained.run, records, {}, "")
    registry = prometheus.run_metrics(summary, sandbox.PRIMARY)

    for name in ("pipeline_live_metric", "pipeline_gate_min", "pipeline_gate_max"):
        number = registry.get_sample_value(name, {"metric": sandbox.PRIMARY})
        assert number is not None
        assert math.isnan(number)


def test_without_mlflow_the_failure_is_pushed_all_the_same(
    trained: Trained, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, gateway.url)

    def away() -> None:
        raise ConnectionError("MLflow is away")

    # Undone before the fixture clears the real client's cache.
    with monkeypatch.context() as patch:
        patch.setattr(tracking, "client", away)
        with pytest.raises(ConnectionError):
            report(trained.run)

    pushed = gateway.of("training")
    assert by_label(pushed["pipeline_stage_failed"])["report"] == 1
    assert one(pushed["pipeline_last_run_succeeded"]) == 0


def test_another_champion_is_pushed_without_a_run(
    trained: Trained, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, gateway.url)

    prometheus.push_champion()

    assert list(gateway.groups) == ["/metrics/job/sandbox"]


def test_without_an_address_nothing_is_tried(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[str] = []
    monkeypatch.setattr(prometheus, "_send", lambda gateway, *others: tried.append(gateway))
    with caplog.at_level(logging.INFO):
        report(trained.run)

    assert tried == []
    assert "metrics" not in caplog.text


def _refuses() -> AbstractContextManager[int]:
    return nullcontext(free_port())


def _answers(content: bytes, every: float | None = None) -> AbstractContextManager[int]:
    return silent_server(content, every)


@contextmanager
def _fails() -> Iterator[int]:
    with webhook(500, b"no\nroom") as server:
        yield int(server.url.split(":")[2].partition("/")[0])


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (_refuses, "URLError"),
        (_fails, "500"),
        (lambda: _answers(b""), "no answer within 0.5 s"),
        (lambda: _answers(b"rubbish\r\n" * 3), "BadStatusLine"),
        (lambda: _answers(b"HTTP/1.1 100 Continue\r\n\r\n", every=0.05), "no answer within 0.5 s"),
    ],
    ids=["down", "error", "silent", "rubbish", "endless"],
)
def test_a_bad_gateway_costs_a_line(
    trained: Trained,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    bad: Any,
    said: str,
) -> None:
    """The servers that never end would keep a run for ever, if the whole had no limit."""
    monkeypatch.setattr(prometheus, "ANSWER_SECONDS", 3600.0)
    monkeypatch.setattr(prometheus, "TOTAL_SECONDS", 0.5)
    with bad() as port, caplog.at_level(logging.WARNING):
        monkeypatch.setenv(VARIABLE, f"http://127.0.0.1:{port}")
        done = report(trained.run)

    assert done.succeeded
    lines = [record.getMessage() for record in caplog.records if "metrics" in record.getMessage()]
    (line,) = lines
    assert f"metrics not pushed to http://127.0.0.1:{port}: " in line
    assert said in line
    assert "\n" not in line


def names(*registries: CollectorRegistry) -> set[str]:
    """Return the names of all series."""
    return {
        sample.name
        for registry in registries
        for family in registry.collect()
        for sample in family.samples
    }


def test_rules_and_dashboards_show_exactly_what_is_pushed(trained: Trained) -> None:
    scored = pipeline.execute("inference", sandbox.PARTITION)
    records = [*sandbox.records(trained.run).values(), *sandbox.records(scored).values()]
    # A champion is compared from the second training on.
    evaluation = sandbox.records(trained.run)["evaluate"]
    assert evaluation.result is not None
    compared = evaluation.result | {"champion_metrics": evaluation.result["metrics"]}
    records.append(evaluation.model_copy(update={"result": compared}))
    summary = Summary(scored, records, {}, "")
    registry = prometheus.run_metrics(summary, sandbox.PRIMARY)
    pushed = names(registry, prometheus.project_metrics())

    files = [*(DEPLOY / "prometheus").glob("*rules.yml"), *(DEPLOY / "grafana").rglob("*.json")]
    shown = {
        name for file in files for name in re.findall(r"\bpipeline_\w+", file.read_text("utf-8"))
    }
    assert len(files) >= 4
    assert shown | NOT_SHOWN == pushed
    assert not shown & NOT_SHOWN
