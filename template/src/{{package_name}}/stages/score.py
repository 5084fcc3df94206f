"""score: the champion predicts a partition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
from upath import UPath

from ..core import registry, storage
from ..core.cadence import Partition
from ..core.context import Context
from ..core.errors import ChampionUnusable
from ..core.logs import get_logger
from ..core.outcomes import Misfit
from ..core.refs import FeaturesRef, Run, ScoresRef
from ..core.settings import load_settings
from ..core.stage import stage
from ..core.stored_model import StoredModel, open_version
from ..interface import load_features, load_problem, load_schema
from ..sources.reference import load_references

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

log = get_logger(__name__)


@stage
def score(run: Run, features: FeaturesRef) -> ScoresRef:
    """Predict every row of the run's partition; scoring it again replaces its predictions.

    Raises:
        NoChampion: No model has passed the gates yet.
        ChampionUnusable: The champion cannot be loaded, or cannot predict these rows.
    """
    champion = registry.require_champion()
    file = next(
        file for file in storage.read_manifest(features.uri) if file.partition == run.partition
    )
    predictions = predict(storage.read_parquet(file.uri), champion)
    written = storage.write_partition(predictions_path(run.partition), run.partition, predictions)
    path = storage.path_of(written.uri)
    log.info("scored %d rows with version %s: %s", written.rows, champion.version, path)
    return ScoresRef(
        uri=written.uri,
        rows=written.rows,
        model_version=int(champion.version),
        fingerprint=written.fingerprint,
    )


def predictions_path(partition: Partition) -> UPath:
    """Return where the predictions of a partition are kept."""
    return storage.artifact_path("predictions", f"{partition}.parquet")


def predict(rows: pl.DataFrame, champion: ModelVersion) -> pl.DataFrame:
    """Predict rows with their features; returns key columns, predictions and version.

    Raises:
        ChampionUnusable: The champion cannot be loaded, or cannot predict these rows.
    """
    model = open_version(champion, load_features().names)
    predicted = predict_with(model, rows)
    version = pl.lit(model.version)
    return rows.select(*load_schema().key, *predicted).with_columns(model_version=version)


def predict_with(model: StoredModel, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the prediction of each row, from the columns that the model was trained on.

    Raises:
        ChampionUnusable: Columns are gone or of another type, or the prediction fails.
    """
    from sklearn.base import is_classifier

    inputs = model.inputs_of(rows)
    with model.blamed():
        predicted = load_problem().metrics.predict(model.estimator, inputs.to_pandas())
        if is_classifier(model.estimator) and not classes_of(predicted):
            misfit = Misfit(kind="other_target", detail="classes, where numbers are predicted now")
            raise ChampionUnusable(model.version, misfit)
    return predicted


def classes_of(predicted: pl.DataFrame) -> set[str]:
    """Return the classes that predictions have a probability of; none for numbers."""
    columns = (name.partition("probability_") for name in predicted.columns)
    return {after for before, found, after in columns if found and not before}


def columns_of_today() -> pl.Schema:
    """Return the columns that a row has with its features, and their types.

    Rows are not needed for that; where features() cannot do without, what it must return is known.
    """
    schema, features = load_schema(), load_features()
    empty = pl.DataFrame(schema=schema.types)
    try:
        context = Context.of(empty, reference=load_references(load_settings()))
        return features.of(empty, context).schema
    except Exception as error:
        log.info("features() fails without rows: %s", error)
        return pl.Schema(schema.types | dict.fromkeys(features.names, pl.Null()))


def read_reference(version: ModelVersion) -> pl.DataFrame:
    """Return a sample of the rows that a version learned from; no columns where it is gone."""
    uri = version.tags.get("reference_uri")
    try:
        return storage.read_parquet(uri) if uri else pl.DataFrame()
    except FileNotFoundError:
        log.warning("the reference of version %s is gone: %s", version.version, uri)
        return pl.DataFrame()


def prove(version: ModelVersion) -> bool:
    """Load a version and let it predict one row that it learned from, with today's columns.

    Returns:
        Whether such a row is still there; without one it was only loaded.

    Raises:
        ChampionUnusable: It cannot be loaded, or cannot predict.
    """
    model = open_version(version, load_features().names)
    model.check(columns_of_today())
    row = read_reference(version).head(1)
    if row.is_empty():
        return False
    predict_with(model, row)
    return True
