"""What runs tell Prometheus, through the Pushgateway at $PROMETHEUS_PUSHGATEWAY_URL.

A run ends before anything could ask it, so its report pushes what became of it. What a run did not
measure keeps the value of the run before. Rules and dashboards that show it are in deploy/.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from upath import UPath

from ..core import registry
from ..core.logs import get_logger
from ..core.records import read_checked_partitions
from ..core.redact import redact
from ..core.settings import Gate, load_environment, load_settings
from ..ml.drift import DriftTable
from .summary import Summary

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

log = get_logger(__name__)

ANSWER_SECONDS = 3.0
TOTAL_SECONDS = 5.0


def push(summary: Summary, primary: str) -> None:
    """Push the metrics of a finished run and of the champion; nothing without an address.

    Never raises, and gives up after `TOTAL_SECONDS`: a run must not fail because of who watches it.

    Args:
        summary: The run.
        primary: Name of the metric that compares models.
    """

    def send(gateway: str) -> None:
        pipeline: str = summary.run.pipeline
        _send(gateway, run_metrics(summary, primary), {"pipeline": pipeline})
        # Last, and of no pipeline: MLflow may not answer, and each run knows of both.
        _send(gateway, project_metrics(), {})

    _attempt(send)


def push_champion() -> None:
    """Push which version is champion, where no run has moved the alias; never raises."""
    _attempt(lambda gateway: _send(gateway, project_metrics(), {}))


def run_metrics(summary: Summary, primary: str) -> CollectorRegistry:
    """Return the metrics of a finished run; the arguments are those of `push`."""
    page = _Page()
    _add_outcome(page, summary)
    _add_stages(page, summary)
    _add_data(page, summary)
    _add_drift(page, summary)
    _add_model(page, summary, primary)
    return page.registry


def project_metrics() -> CollectorRegistry:
    """Return which pipelines have a schedule and, where there is one, the champion and its age."""
    page, schedule = _Page(), load_settings().schedule
    page.add_each(
        "pipeline_scheduled",
        "1 for a pipeline with a schedule, 0 for one that is run by hand only.",
        "pipeline",
        {"training": bool(schedule.training), "inference": bool(schedule.inference)},
    )
    champion = registry.version_of(registry.CHAMPION)
    if champion is not None:
        version, created = int(champion.version), champion.creation_timestamp / 1000
        page.add("pipeline_champion_version", "Registry version of the champion.", version)
        name = "pipeline_champion_created_timestamp_seconds"
        page.add(name, "When the champion was registered.", created)
    return page.registry


class _Page:
    """Metrics that are pushed together."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry

        self.registry = CollectorRegistry()

    def add(self, name: str, documentation: str, number: float) -> None:
        """Add a number."""
        from prometheus_client import Gauge

        Gauge(name, documentation, registry=self.registry).set(number)

    def add_each(
        self, name: str, documentation: str, label: str, numbers: Mapping[str, float]
    ) -> None:
        """Add a number for each value of a label."""
        from prometheus_client import Gauge

        gauge = Gauge(name, documentation, (label,), registry=self.registry)
        for key, number in numbers.items():
            gauge.labels(key).set(number)

    def add_texts(self, name: str, documentation: str, texts: dict[str, str]) -> None:
        """Add texts, as labels of a 1."""
        from prometheus_client import Info

        Info(name, documentation, registry=self.registry).info(texts)


def _add_outcome(page: _Page, summary: Summary) -> None:
    now, run = time.time(), summary.run
    about = {"run": run.key, "partition": f"{run.partition}", "mlflow": summary.tracking_url}
    page.add_texts("pipeline_last_run", "The last run, and its page in MLflow.", about)
    page.add("pipeline_last_run_timestamp_seconds", "When the last run ended.", now)
    succeeded = not summary.failures
    page.add("pipeline_last_run_succeeded", "1 when all of its stages ended well.", succeeded)
    if summary.records:
        seconds = now - min(record.started for record in summary.records).timestamp()
        page.add("pipeline_last_run_duration_seconds", "From first stage to end.", seconds)
    if succeeded:
        page.add("pipeline_last_success_timestamp_seconds", "When a run last succeeded.", now)


def _add_stages(page: _Page, summary: Summary) -> None:
    failed = summary.failed_stages
    page.add_each(
        "pipeline_stage_duration_seconds",
        "Wall time of each stage of the last run.",
        "stage",
        {record.label: record.seconds for record in summary.records},
    )
    page.add_each(
        "pipeline_stage_rows",
        "Rows that each stage of the last run returned.",
        "stage",
        {
            record.label: record.result["rows"]
            for record in summary.records
            if record.result and "rows" in record.result
        },
    )
    labels = [*(record.label for record in summary.records), *failed]
    page.add_each(
        "pipeline_stage_failed",
        "1 for each stage of the last run that failed.",
        "stage",
        {label: label in failed for label in labels},
    )


def _add_data(page: _Page, summary: Summary) -> None:
    checked = read_checked_partitions(summary.run, summary.records)
    violations = len(summary.violations)
    if checked:
        rows = sum(partition.rows for partition in checked)
        invalid = sum(partition.quarantined for partition in checked)
        page.add("pipeline_validation_rows", "Rows that were checked.", rows)
        page.add("pipeline_validation_invalid_rows", "Rows that broke the contract.", invalid)
    if checked or violations:
        documentation = "Broken limits; any rejects the data."
        page.add("pipeline_validation_violations", documentation, violations)
    most = summary.run.settings.validation.max_invalid_share
    page.add("pipeline_validation_max_invalid_share", "[validation] max_invalid_share.", most)
    if summary.scores:
        begin = datetime.combine(summary.run.partition, datetime.min.time(), UTC).timestamp()
        name = "pipeline_scored_partition_timestamp_seconds"
        page.add(name, "The day that was scored last, at its beginning.", begin)


def _add_drift(page: _Page, summary: Summary) -> None:
    limits, monitoring = summary.run.settings.monitoring, summary.monitoring
    if monitoring:
        table = DriftTable.model_validate_json(UPath(monitoring.uri).read_text())
        psi = {row.feature: row.psi for row in table.features}
        page.add_each("pipeline_drift_psi", "Population stability index.", "feature", psi)
        share = len(monitoring.drift.drifted) / max(monitoring.drift.stable_features, 1)
        page.add("pipeline_drift_share", "Share of the stable features that drifted.", share)
    page.add("pipeline_drift_max_psi", "[monitoring] max_psi.", limits.max_psi)
    name = "pipeline_drift_max_share"
    page.add(name, "[monitoring] max_drifted_share.", limits.max_drifted_share)


def _add_model(page: _Page, summary: Summary, primary: str) -> None:
    monitoring, evaluation = summary.monitoring, summary.evaluation
    if monitoring:
        # No labels is an answer, too: it must replace what was measured before.
        live = monitoring.live_metrics or {primary: math.nan}
        page.add_each("pipeline_live_metric", "Of predictions with labels.", "metric", live)
    if evaluation:
        measured = {"challenger": evaluation.metrics, "champion": evaluation.champion_metrics}
        for model, metrics in measured.items():
            documentation = f"Of the {model} on the holdout days of the last training."
            page.add_each(f"pipeline_{model}_metric", documentation, "metric", metrics)
    gates = summary.run.settings.gates.metrics or {primary: Gate()}
    for bound in ("min", "max"):
        limits = {metric: getattr(gate, bound) for metric, gate in gates.items()}
        # Nothing is below or above NaN. A limit that is gone must replace the one that was.
        numbers = {metric: math.nan if n is None else n for metric, n in limits.items()}
        documentation = f"[gates.metrics] {bound}; NaN where there is none."
        page.add_each(f"pipeline_gate_{bound}", documentation, "metric", numbers)


def _send(gateway: str, registry: CollectorRegistry, group: dict[str, str]) -> None:
    from prometheus_client import pushadd_to_gateway

    job = load_settings().project.slug
    pushadd_to_gateway(gateway, job, registry, grouping_key=group, timeout=ANSWER_SECONDS)


def _attempt(send: Callable[[str], None]) -> None:
    load_environment()
    gateway = os.environ.get("PROMETHEUS_PUSHGATEWAY_URL")
    if not gateway:
        return
    outcome = [f"no answer within {TOTAL_SECONDS:g} s"]

    def attempt() -> None:
        try:
            send(gateway)
            outcome.clear()
        except Exception as error:
            outcome[0] = f"{type(error).__name__}: {error}"

    # Libraries limit each read, not the whole exchange; a thread can be left behind.
    thread = threading.Thread(target=attempt, daemon=True, name="metrics")
    thread.start()
    thread.join(TOTAL_SECONDS)
    address = redact(gateway)
    if outcome:
        log.warning("metrics not pushed to %s: %s", address, " ".join(redact(outcome[0]).split()))
    else:
        log.info("metrics pushed to %s", address)
