"""Scoring of a single file by the champion, outside any pipeline run."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from upath import UPath

from ..core import registry, storage
from ..core.cadence import Partition
from ..core.context import Context
from ..core.errors import BadInput, DataRejected, MissingPartitions
from ..core.settings import load_settings
from ..interface import ROW, load_features, load_schema
from ..sources.read import read_file, suffix_of, violation_of
from ..sources.reference import load_references
from ..stages.score import predict
from ..stages.validate import BROKEN_FILE, check_rows


def score_file(source: Path, target: Path) -> str:
    """Predict the rows of a file of any known format, and return a sentence about it for people.

    Writes key columns, prediction and version, in the order of the file's valid rows.

    Raises:
        BadInput: The source is not of a known format, or the target neither .parquet nor .csv, or
            both are one file.
        DataRejected: The file cannot be read, or the rows break the contract beyond its limits.
        MissingPartitions: No run has validated a partition that the features look back on.
        NoChampion: No model has passed the gates yet.
        ChampionUnusable: It was stored by other code, and cannot predict these rows.
    """
    suffix_of(source.name)
    if target.suffix not in (".parquet", ".csv"):
        raise BadInput(f"{target}: only .parquet and .csv can be written")
    if target.exists() and target.samefile(source):
        raise BadInput(f"{target} holds the rows to predict: name another file for predictions")
    limits = load_settings().validation.model_copy(update={"min_rows": 1})
    try:
        rows = read_file(UPath(source))
        valid, findings = check_rows(rows, limits, partition=None, needs_label=False)
    except BROKEN_FILE as error:
        raise DataRejected(source.name, [violation_of(error)]) from None
    if findings.violations:
        raise DataRejected(source.name, findings.violations)
    champion = registry.require_champion()
    predictions = predict(_features(valid), champion)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.part")
    if target.suffix == ".csv":
        predictions.write_csv(beside)
    else:
        predictions.write_parquet(beside)
    beside.replace(target)
    return (
        f"{predictions.height} rows predicted by version {champion.version}, "
        f"{findings.invalid.height} left out as invalid → {target}"
    )


def _features(valid: pl.DataFrame) -> pl.DataFrame:
    """Return rows with their features; those before them come from the last runs."""
    features, time = load_features(), load_schema().time
    reference = load_references(load_settings())
    if not features.lookback:
        return features.of(valid, Context.of(valid, reference=reference))
    if time is None:
        raise BadInput(
            f"{features.looks_back}, and without TIME in domain/schema.py no row says of when it is"
        )
    cadence = load_settings().data.cadence
    partitions = valid.select(
        partition=cadence.names(cadence.clock(pl.col(time), valid.schema[time]))
    )
    made = []
    places = []
    for (partition,), rows in valid.with_row_index(ROW).group_by(partitions.to_series()):
        before = cadence.window(f"{partition}", 1 + features.lookback)[:-1]
        read = [_validated(one, f"{partition}") for one in before]
        places.append(rows.get_column(ROW))
        rows = rows.drop(ROW)
        made.append(features.of(rows, Context.of(rows, read, reference)))
    # Without a KEY, a prediction's place says which row it is of.
    return pl.concat(made)[pl.concat(places).arg_sort()]


def _validated(partition: Partition, of: Partition) -> pl.DataFrame:
    """Return the valid rows of a partition, as the last run wrote them."""
    folder = storage.artifact_path("validated", partition)
    files = list(folder.glob("*.parquet")) if folder.is_dir() else []
    if not files:
        raise MissingPartitions(
            f"the features of {of} look back on {partition}, which no run has validated here: run "
            f"the pipeline for {partition} or a later one first"
        )
    return storage.read_parquet(str(max(files, key=lambda file: file.stat().st_mtime)))
