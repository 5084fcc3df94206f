"""What runs tell Prometheus, through the Pushgateway at $PROMETHEUS_PUSHGATEWAY_URL.

A run ends before Prometheus could scrape it, so its report pushes the outcome. What a run did not
measure keeps the value of the run before. Rules and dashboards that show it are in deploy/.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ..core import registry
from ..core.attempt import attempt
from ..core.logs import get_logger
from ..core.records import read_checked_partitions
from ..core.redact import presentable, redact
from ..core.settings import Gate, load_environment, load_settings
from .summary import Summary

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

log = get_logger(__name__)

ANSWER_SECONDS = 3.0
TOTAL_SECONDS = 5.0


class Metric(NamedTuple):
    """A gauge; its numbers are one, or one for each value of a label."""

    name: str
    documentation: str
    numbers: float | Mapping[str, float]
    label: str = ""


def push(summary: Summary, primary: str) -> None:
    """Push the metrics of a finished run and of the champion; nothing without an address.

    Never raises, and gives up after `TOTAL_SECONDS`: a run must not fail because of its monitoring.

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
    from prometheus_client import Info

    collected = _registry([*_of_run(summary), *_of_data(summary), *_of_model(summary, primary)])
    run, page = summary.run, summary.tracking_url
    last = Info("pipeline_last_run", "The last run, and its page in MLflow.", registry=collected)
    last.info({"run": run.key, "partition": f"{run.partition}", "mlflow": page})
    return collected


def project_metrics() -> CollectorRegistry:
    """Return which pipelines have a schedule, and the champion and its age: NaN without one."""
    schedule = load_settings().schedule
    scheduled = {"training": bool(schedule.training), "inference": bool(schedule.inference)}
    metrics = [Metric("pipeline_scheduled", "1 with a schedule, 0 without.", scheduled, "pipeline")]
    champion = registry.version_of(registry.CHAMPION)
    # One that was retired must not stay.
    version = int(champion.version) if champion else math.nan
    created = champion.creation_timestamp / 1000 if champion else math.nan
    name = "pipeline_champion_created_timestamp_seconds"
    metrics += [
        Metric("pipeline_champion_version", "Registry version of the champion.", version),
        Metric(name, "When the champion was registered.", created),
    ]
    return _registry(metrics)


def _registry(metrics: Iterable[Metric]) -> CollectorRegistry:
    from prometheus_client import CollectorRegistry, Gauge

    collected = CollectorRegistry()
    for name, documentation, numbers, label in metrics:
        gauge = Gauge(name, documentation, [label] if label else [], registry=collected)
        if isinstance(numbers, Mapping):
            for value, number in numbers.items():
                gauge.labels(value).set(number)
        else:
            gauge.set(numbers)
    return collected


def _of_run(summary: Summary) -> Iterator[Metric]:
    now, records, failed = time.time(), summary.records, summary.failures
    yield Metric("pipeline_last_run_timestamp_seconds", "When the last run ended.", now)
    yield Metric("pipeline_last_run_succeeded", "1 when all stages ended well.", not failed)
    if not failed:
        yield Metric("pipeline_last_success_timestamp_seconds", "When a run last succeeded.", now)
    if records:
        seconds = now - min(record.started for record in records).timestamp()
        yield Metric("pipeline_last_run_duration_seconds", "From first stage to end.", seconds)
    times = {record.label: record.seconds for record in records}
    yield Metric("pipeline_stage_duration_seconds", "Wall time of each stage.", times, "stage")
    yield Metric("pipeline_stage_rows", "Rows that each stage returned.", summary.rows, "stage")
    ended = {label: label in failed for label in (*times, *failed)}
    yield Metric("pipeline_stage_failed", "1 for each stage that failed.", ended, "stage")


def _of_data(summary: Summary) -> Iterator[Metric]:
    checked = read_checked_partitions(summary.run, summary.records)
    broken = len(summary.violations)
    if checked:
        rows = sum(partition.rows for partition in checked)
        invalid = sum(partition.quarantined for partition in checked)
        yield Metric("pipeline_validation_rows", "Rows that were checked.", rows)
        yield Metric("pipeline_validation_invalid_rows", "Rows that broke the contract.", invalid)
    if checked or broken:
        yield Metric("pipeline_validation_violations", "Limits that the data broke.", broken)
    most = summary.run.settings.validation.max_invalid_share
    yield Metric("pipeline_validation_max_invalid_share", "[validation] max_invalid_share.", most)
    cadence = summary.run.settings.data.cadence
    if summary.results.score and cadence.unit != "none":
        begin, end = (at(summary.run.partition).timestamp() for at in (cadence.start, cadence.end))
        name = "pipeline_scored_partition_timestamp_seconds"
        yield Metric(name, "When the partition begins that was scored last.", begin)
        yield Metric("pipeline_scored_partition_seconds", "How long it lasts.", end - begin)


def _of_model(summary: Summary, primary: str) -> Iterator[Metric]:
    monitoring, evaluation = summary.results.monitor, summary.results.evaluate
    if monitoring:
        psi = {row.feature: row.psi for row in summary.drift}
        yield Metric("pipeline_drift_psi", "Population stability index.", psi, "feature")
        share = len(monitoring.drift.drifted) / max(monitoring.drift.stable_features, 1)
        yield Metric("pipeline_drift_share", "Share of stable features that drifted.", share)
        # No labels is also an answer: it must replace what was measured before.
        live = monitoring.live_metrics or {primary: math.nan}
        yield Metric("pipeline_live_metric", "Of predictions with labels.", live, "metric")
    if evaluation:
        documentation = "On the held-out rows of the last training."
        for who, measured in {
            "challenger": evaluation.metrics,
            "champion": evaluation.champion_metrics,
            "baseline": evaluation.baseline_metrics,
        }.items():
            yield Metric(f"pipeline_{who}_metric", documentation, measured, "metric")
    limits = summary.run.settings.monitoring
    yield Metric("pipeline_drift_max_psi", "[monitoring] max_psi.", limits.max_psi)
    most = limits.max_drifted_share
    yield Metric("pipeline_drift_max_share", "[monitoring] max_drifted_share.", most)
    gates = summary.run.settings.gates.metrics or {primary: Gate()}
    for bound in ("min", "max"):
        limit = {metric: getattr(gate, bound) for metric, gate in gates.items()}
        # Nothing is below or above NaN. A limit that is gone must replace the one that was.
        numbers = {metric: math.nan if n is None else n for metric, n in limit.items()}
        yield Metric(f"pipeline_gate_{bound}", "NaN where there is none.", numbers, "metric")


def _send(gateway: str, registry: CollectorRegistry, group: dict[str, str]) -> None:
    from prometheus_client import pushadd_to_gateway

    job = load_settings().project.slug
    pushadd_to_gateway(gateway, job, registry, grouping_key=group, timeout=ANSWER_SECONDS)


def _attempt(send: Callable[[str], None]) -> None:
    load_environment()
    gateway = os.environ.get("PROMETHEUS_PUSHGATEWAY_URL")
    if not gateway:
        return
    error = attempt({"push": partial(send, gateway)}, TOTAL_SECONDS)["push"]
    if error is None:
        log.info("metrics pushed to %s", redact(gateway))
    else:
        reason = presentable(f"{type(error).__name__}: {error}")
        log.warning("metrics not pushed to %s: %s", redact(gateway), " ".join(reason.split()))
