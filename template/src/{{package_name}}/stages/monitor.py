"""monitor: has the data moved away from what the champion learned, and is it still good?"""

from __future__ import annotations

import polars as pl

from .. import alerts
from ..core import registry, storage, tracking
from ..core.logs import get_logger
from ..core.outcomes import DriftVerdict
from ..core.refs import FeaturesRef, MonitorRef, Run, ScoresRef
from ..core.stage import stage
from ..domain import problem
from ..domain.features import FEATURES, KEY, STABLE_FEATURES
from ..ml.drift import DriftTable, drift_table
from ..ml.gates import check_gates
from .score import predictions_path

log = get_logger(__name__)


@stage
def monitor(run: Run, features: FeaturesRef, scores: ScoresRef) -> MonitorRef:
    """Compare the newest days with the champion's training data and, where labels came, judge it.

    Drift is measured over the monitoring window, live performance over those of its days that
    have stored predictions and labels. A new model is asked for when too many of the stable
    features drifted or a gate fails on live data; the team is told.
    """
    files = storage.read_manifest(features.uri)
    window = storage.read_partitions(files)
    table, drift = _measure_drift(run, scores, window)
    live = live_metrics(window, [f"{file.partition}" for file in files])
    gates = tuple(
        result.model_copy(update={"measured_on": "live"})
        for result in (check_gates(live, run.settings.gates) if live else ())
    )
    tracking.log_metrics(
        run.tracking_run_id,
        {f"psi.{row.feature}": row.psi for row in table.features}
        | {f"live_{key}": value for key, value in live.items()}
        | {"drifted_features": len(drift.drifted)},
    )
    moved = {row.feature: row.psi for row in table.features if row.drifted}
    log.info("drifted: %s; live: %s", ", ".join(moved) or "nothing", live or "no labels yet")
    path = storage.artifact_path("monitoring", f"{run.partition}", f"{scores.fingerprint}.json")
    monitoring = MonitorRef(
        uri=storage.write_model(path, table),
        drift=drift,
        live_metrics=live,
        live_gates=gates,
        retrain=drift.exceeded or not all(gate.passed for gate in gates),
    )
    if monitoring.retrain:
        alerts.send(alerts.Event.of_drift(run, monitoring, moved))
    return monitoring


def live_metrics(window: pl.DataFrame, partitions: list[str]) -> dict[str, float]:
    """Return the metrics of stored predictions whose labels have arrived; empty without any."""
    paths = [predictions_path(partition) for partition in partitions]
    stored = [storage.read_parquet(str(path)) for path in paths if path.exists()]
    if not stored:
        return {}
    joined = pl.concat(stored).join(
        window.select(*KEY, "target").filter(pl.col("target").is_not_null()), on=KEY
    )
    if joined["target"].n_unique() < 2:
        return {}
    return problem.metrics.score(joined["target"].to_numpy(), joined["prediction"].to_numpy())


def _measure_drift(
    run: Run, scores: ScoresRef, window: pl.DataFrame
) -> tuple[DriftTable, DriftVerdict]:
    """Compare rows with those the champion learned from; returns all features and the verdict."""
    limits = run.settings.monitoring
    champion = tracking.client().get_model_version(registry.model_name(), str(scores.model_version))
    reference = storage.read_parquet(champion.tags["reference_uri"])
    table = drift_table(reference, window, list(FEATURES), limits.max_psi)
    drifted = [row.feature for row in table.features if row.drifted]
    unstable = tuple(feature for feature in drifted if feature in STABLE_FEATURES)
    return table, DriftVerdict(
        drifted=unstable,
        stable_features=len(STABLE_FEATURES),
        max_psi=limits.max_psi,
        exceeded=len(unstable) > limits.max_drifted_share * len(STABLE_FEATURES),
    )
