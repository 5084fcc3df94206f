"""monitor: has the data moved away from what the champion learned, and is it still good?"""

from __future__ import annotations

import json

import polars as pl

from .. import alerts
from ..core import storage, tracking
from ..core.logs import get_logger
from ..core.refs import FeaturesRef, MonitorRef, Run, ScoresRef
from ..core.settings import load_settings
from ..core.stage import stage
from ..domain import problem
from ..domain.features import FEATURES, KEY, STABLE_FEATURES
from ..ml.drift import drift_table
from .evaluate import check_gates
from .score import predictions_path

log = get_logger(__name__)


@stage
def monitor(run: Run, features: FeaturesRef, scores: ScoresRef) -> MonitorRef:
    """Compare the newest days with the champion's training data and, where labels came, judge it.

    Drift is measured over the monitoring window, live performance over those of its days that
    have stored predictions and labels. A new model is asked for when too many of the stable
    features drifted or a gate fails on live data; the team is told.
    """
    settings = load_settings()
    files = storage.read_manifest(features.uri)
    window = storage.read_partitions(files)
    champion = tracking.client().get_model_version(tracking.model_name(), str(scores.model_version))
    reference = storage.read_parquet(champion.tags["reference_uri"])
    limit = settings.monitoring.max_psi
    drift = drift_table(reference, window, list(FEATURES), limit)
    moved = {row.feature: row.psi for row in drift if row.drifted}
    drifted = tuple(feature for feature in moved if feature in STABLE_FEATURES)
    live = live_metrics(window, [f"{file.partition}" for file in files])

    reasons: list[str] = []
    if len(drifted) > settings.monitoring.max_drifted_share * len(STABLE_FEATURES):
        reasons.append(
            f"{len(drifted)} of {len(STABLE_FEATURES)} stable features drifted: "
            f"{', '.join(drifted)} "
            f"(population stability index above {limit:g})"
        )
    if live:
        failures, _ = check_gates(live, {}, settings.gates)
        reasons += [f"live {failure}" for failure in failures]
    path = storage.artifact_path("monitoring", f"{run.partition}", f"{scores.fingerprint}.json")
    uri = storage.write_text(
        path, json.dumps([row.model_dump(mode="json") for row in drift], indent=1)
    )
    tracking.log_metrics(
        run.tracking_run_id,
        {f"psi.{row.feature}": row.psi for row in drift}
        | {f"live_{key}": value for key, value in live.items()}
        | {"drifted_features": len(drifted)},
    )
    log.info("drifted: %s; live: %s", ", ".join(moved) or "nothing", live or "no labels yet")
    if reasons:
        alerts.send(
            alerts.Event(
                kind="drift",
                pipeline=run.pipeline,
                stage="monitor",
                partition=f"{run.partition}",
                run_key=run.key,
                summary="; ".join(reasons),
                tracking_url=tracking.run_url(run.tracking_run_id),
                details={feature: f"PSI {value:.2f}" for feature, value in moved.items()},
            )
        )
    return MonitorRef(
        uri=uri,
        drifted=drifted,
        live_metrics=live,
        retrain=bool(reasons),
        reasons=tuple(reasons),
    )


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
