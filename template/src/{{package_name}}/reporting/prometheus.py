"""What runs tell Prometheus, through the Pushgateway at $PROMETHEUS_PUSHGATEWAY_URL.

A run ends before anything could ask it, so its report pushes what became of it. What a run did not
measure keeps the value of the run before. Rules and dashboards that show it are in deploy/.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from upath import UPath

from ..core import tracking
from ..core.logs import get_logger
from ..core.redact import redact
from ..core.refs import Run
from ..core.settings import Gate, load_environment, load_settings
from ..core.stage import StageRecord, read_checked_days
from ..domain import problem
from ..domain.features import STABLE_FEATURES

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

log = get_logger(__name__)

ANSWER_SECONDS = 3.0
TOTAL_SECONDS = 5.0


def push(
    run: Run, records: Sequence[StageRecord], failed: Sequence[str], problems: int, url: str
) -> None:
    """Push the metrics of a finished run and of the champion; nothing without an address.

    Never raises, and gives up after `TOTAL_SECONDS`: a run must not fail because of who watches it.

    Args:
        run: The run.
        records: What its stages recorded.
        failed: Labels of the stages that failed; the run succeeded when there is none.
        problems: How many limits of the data contract were broken.
        url: The run's page in MLflow.
    """

    def send(gateway: str) -> None:
        _send(gateway, run_metrics(run, records, failed, problems, url), {"pipeline": run.pipeline})
        # Last, and of no pipeline: MLflow may not answer, and each run knows of both.
        _send(gateway, project_metrics(), {})

    _attempt(send)


def push_champion() -> None:
    """Push which version is champion, where no run has moved the alias; never raises."""
    _attempt(lambda gateway: _send(gateway, project_metrics(), {}))


def run_metrics(
    run: Run, records: Sequence[StageRecord], failed: Sequence[str], problems: int, url: str
) -> CollectorRegistry:
    """Return the metrics of a finished run; the arguments are those of `push`."""
    page = _Page()
    results = {record.stage: record.result for record in records if record.result is not None}
    _add_outcome(page, run, records, failed, url)
    _add_stages(page, records, failed)
    _add_data(page, run, results, read_checked_days(run, records), problems)
    _add_model(page, results)
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
    champion = tracking.version_of(tracking.CHAMPION)
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


def _add_outcome(
    page: _Page, run: Run, records: Sequence[StageRecord], failed: Sequence[str], url: str
) -> None:
    now = time.time()
    about = {"run": run.key, "partition": f"{run.partition}", "mlflow": url}
    page.add_texts("pipeline_last_run", "The last run, and its page in MLflow.", about)
    page.add("pipeline_last_run_timestamp_seconds", "When the last run ended.", now)
    page.add("pipeline_last_run_succeeded", "1 when all of its stages ended well.", not failed)
    if records:
        seconds = now - min(record.started for record in records).timestamp()
        page.add("pipeline_last_run_duration_seconds", "From first stage to end.", seconds)
    if not failed:
        page.add("pipeline_last_success_timestamp_seconds", "When a run last succeeded.", now)


def _add_stages(page: _Page, records: Sequence[StageRecord], failed: Sequence[str]) -> None:
    page.add_each(
        "pipeline_stage_duration_seconds",
        "Wall time of each stage of the last run.",
        "stage",
        {record.label: record.seconds for record in records},
    )
    page.add_each(
        "pipeline_stage_rows",
        "Rows that each stage of the last run returned.",
        "stage",
        {
            record.label: record.result["rows"]
            for record in records
            if record.result and "rows" in record.result
        },
    )
    page.add_each(
        "pipeline_stage_failed",
        "1 for each stage of the last run that failed.",
        "stage",
        {label: label in failed for label in [*(record.label for record in records), *failed]},
    )


def _add_data(
    page: _Page,
    run: Run,
    results: Mapping[str, dict[str, Any]],
    days: Sequence[Mapping[str, Any]],
    problems: int,
) -> None:
    settings = load_settings()
    if days:
        rows, invalid = (sum(day[key] for day in days) for key in ("rows", "quarantined"))
        page.add("pipeline_validation_rows", "Rows that were checked.", rows)
        page.add("pipeline_validation_invalid_rows", "Rows that broke the contract.", invalid)
    if days or problems:
        page.add("pipeline_validation_problems", "Broken limits; any rejects the data.", problems)
    most = settings.validation.max_invalid_share
    page.add("pipeline_validation_max_invalid_share", "[validation] max_invalid_share.", most)

    monitor = results.get("monitor")
    if monitor:
        table = json.loads(UPath(monitor["uri"]).read_text())
        psi = {row["feature"]: row["psi"] for row in table}
        page.add_each("pipeline_drift_psi", "Population stability index.", "feature", psi)
        share = len(monitor["drifted"]) / max(len(STABLE_FEATURES), 1)
        page.add("pipeline_drift_share", "Share of the stable features that drifted.", share)
    page.add("pipeline_drift_max_psi", "[monitoring] max_psi.", settings.monitoring.max_psi)
    most = settings.monitoring.max_drifted_share
    page.add("pipeline_drift_max_share", "[monitoring] max_drifted_share.", most)
    if "score" in results:
        day = datetime(run.partition.year, run.partition.month, run.partition.day, tzinfo=UTC)
        name = "pipeline_scored_partition_timestamp_seconds"
        page.add(name, "The day that was scored last, at its beginning.", day.timestamp())


def _add_model(page: _Page, results: Mapping[str, dict[str, Any]]) -> None:
    monitor, evaluation = results.get("monitor"), results.get("evaluate")
    if monitor:
        # No labels is an answer, too: it must replace what was measured before.
        live = monitor["live_metrics"] or {problem.metrics.PRIMARY: math.nan}
        page.add_each("pipeline_live_metric", "Of predictions with labels.", "metric", live)
    if evaluation:
        for model, key in (("challenger", "metrics"), ("champion", "champion_metrics")):
            documentation = f"Of the {model} on the holdout days of the last training."
            page.add_each(f"pipeline_{model}_metric", documentation, "metric", evaluation[key])
    gates = load_settings().gates.metrics or {problem.metrics.PRIMARY: Gate()}
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
