"""score: the champion predicts a partition."""

from __future__ import annotations

import polars as pl
from upath import UPath

from ..core import registry, storage
from ..core.logs import get_logger
from ..core.refs import FeaturesRef, Run, ScoresRef
from ..core.stage import stage
from ..domain import problem
from ..domain.features import FEATURES, KEY

log = get_logger(__name__)


@stage
def score(run: Run, features: FeaturesRef) -> ScoresRef:
    """Predict every row of the run's partition; scoring it again replaces its predictions.

    Raises:
        NoChampion: No model has passed the gates yet.
    """
    champion = registry.require_champion()
    file = next(
        file for file in storage.read_manifest(features.uri) if file.partition == run.partition
    )
    rows = storage.read_parquet(file.uri)
    predictions = predict(rows, champion.name, int(champion.version))
    written = storage.write_partition(
        predictions_path(f"{run.partition}"), run.partition, predictions
    )
    log.info("scored %d rows with version %s: %s", written.rows, champion.version, written.uri)
    return ScoresRef(
        uri=written.uri,
        rows=written.rows,
        model_version=int(champion.version),
        fingerprint=written.fingerprint,
    )


def predictions_path(partition: str) -> UPath:
    """Return where the predictions of a partition are kept."""
    return storage.artifact_path("predictions", f"{partition}.parquet")


def predict(rows: pl.DataFrame, model_name: str, version: int) -> pl.DataFrame:
    """Predict rows that have all feature columns; returns key columns, prediction, version."""
    model = registry.load_model(f"models:/{model_name}/{version}")
    values = problem.metrics.predict(model, rows.select(FEATURES).to_pandas())
    return rows.select(KEY).with_columns(
        pl.Series("prediction", values), pl.lit(version).alias("model_version")
    )
