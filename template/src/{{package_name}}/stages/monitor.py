"""monitor: has the data moved away from what the champion learned, and is it still good?"""

from __future__ import annotations

import polars as pl

from .. import alerts
from ..core import registry, storage, tracking
from ..core.cadence import Partition
from ..core.logs import get_logger
from ..core.outcomes import DriftVerdict
from ..core.refs import FeaturesRef, MonitorRef, Run, ScoresRef
from ..core.stage import stage
from ..interface import load_features, load_problem, load_schema
from ..ml.drift import DriftTable, drift_table
from ..ml.gates import check_gates
from .score import classes_of, predictions_path, read_reference

log = get_logger(__name__)


@stage
def monitor(run: Run, features: FeaturesRef, scores: ScoresRef) -> MonitorRef:
    """Compare the newest rows with the champion's training data and, where labels came, judge it.

    Drift is measured over the monitoring window, live performance over its partitions that have
    labels and predictions of a model that had not learned from them. A new model is asked for when
    too many of the stable features drifted or a gate fails on live data; the team gets an alert.
    """
    files = storage.read_manifest(features.uri)
    window = storage.read_partitions(files)
    table, drift = _measure_drift(run, scores, window)
    live = live_metrics(window, [file.partition for file in files], scores)
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
    log.info("drifted: %s; live: %s", ", ".join(moved) or "nothing", live or "nothing yet")
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


def live_metrics(
    window: pl.DataFrame, partitions: list[str], scores: ScoresRef
) -> dict[str, float]:
    """Return the metrics of stored predictions whose labels have arrived; empty without any.

    Left out are predictions of partitions that their model version had learned from, and those
    that other code stored with another KEY or of another kind than those of `scores`.
    """
    schema = load_schema()
    if not schema.key:
        log.info("no KEY in domain/schema.py, so labels cannot be joined to predictions")
        return {}
    labels = window.select(*schema.key, "target").filter(pl.col("target").is_not_null())
    today = storage.read_parquet(scores.uri)
    joined, left_out = [], {}
    seen = {int(one.version): one.tags.get("trained_until") for one in registry.registered()}
    for partition in partitions:
        path = predictions_path(partition)
        if path.exists():
            try:
                stored = storage.read_parquet(str(path))
            except pl.exceptions.PolarsError:
                left_out[partition] = f"{path} cannot be read: run inference for it again"
                continue
            if reason := _misfit(stored, today, labels) or _known(stored, partition, seen):
                left_out[partition] = reason
            else:
                keys = [pl.col(name).cast(labels.schema[name]) for name in schema.key]
                joined.append(stored.with_columns(keys).join(labels, on=list(schema.key)))
    if left_out:
        said = ", ".join(f"{partition} ({reason})" for partition, reason in left_out.items())
        log.warning("predictions are left out of live performance: %s", said)
    # Models that knew other classes have left other columns.
    rows = pl.concat(joined, how="diagonal_relaxed") if joined else pl.DataFrame()
    if rows.is_empty() or rows["target"].n_unique() < 2:
        return {}
    return load_problem().metrics.score(rows["target"], rows.drop(*schema.key, "target"))


def _misfit(stored: pl.DataFrame, today: pl.DataFrame, labels: pl.DataFrame) -> str:
    """Return why stored predictions cannot be measured beside today's; empty if they can."""
    for name in load_schema().key:
        if name not in stored.columns:
            return f"no {name}"
        try:
            stored[name].cast(labels.schema[name])
        except pl.exceptions.PolarsError:
            return f"{name} is {stored.schema[name]}"
    classes, known = classes_of(today), classes_of(stored)
    if bool(classes) != bool(known) or (classes and classes.isdisjoint(known)):
        return f"classes {', '.join(sorted(known)) or 'none'}"
    names = {name for name in today.columns if not name.startswith("probability_")}
    missing = sorted(names - set(stored.columns))
    return f"no {', '.join(missing)}" if missing else ""


def _known(stored: pl.DataFrame, partition: Partition, seen: dict[int, str | None]) -> str:
    """Return why the model may have learned from what it predicted; empty if it has not."""
    for version in stored["model_version"].unique():
        until = seen.get(version)
        if until is None:
            return f"what version {version} learned from is not known"
        if partition <= until:
            return f"version {version} is trained until {until}"
    return ""


def _measure_drift(
    run: Run, scores: ScoresRef, window: pl.DataFrame
) -> tuple[DriftTable, DriftVerdict]:
    """Compare rows with those the champion learned from; returns all features and the verdict.

    Features that one side does not have are not compared; if the reference is gone, none are.
    """
    limits, features = run.settings.monitoring, load_features()
    version = f"{scores.model_version}"
    champion = tracking.client().get_model_version(registry.model_name(), version)
    reference = read_reference(champion)
    compared = [name for name in features.names if name in reference.columns]
    left_out = tuple(name for name in features.names if name not in compared)
    if left_out:
        log.warning(
            "drift is not measured of what the reference of version %s does not have: %s",
            version,
            ", ".join(left_out),
        )
    table = drift_table(reference, window, compared, limits.max_psi)
    drifted = [row.feature for row in table.features if row.drifted]
    unstable = tuple(feature for feature in drifted if feature in features.stable)
    stable = sum(feature in compared for feature in features.stable)
    return table, DriftVerdict(
        drifted=unstable,
        stable_features=stable,
        max_psi=limits.max_psi,
        exceeded=len(unstable) > limits.max_drifted_share * stable,
        not_compared=left_out,
    )
