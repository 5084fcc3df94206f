"""Scoring of a single file by the champion, outside any pipeline run."""

from __future__ import annotations

from pathlib import Path

from ..core import registry
from ..core.errors import BadInput, DataRejected
from ..core.settings import load_settings
from ..domain.features import features
from ..stages.score import predict
from ..stages.validate import BROKEN_FILE, broken_file, check_rows, read_rows


def score_file(source: Path, target: Path) -> str:
    """Predict the rows of a Parquet or CSV file, and return a sentence about it for people.

    Writes key columns, prediction and version.

    Raises:
        BadInput: A file is neither .parquet nor .csv.
        DataRejected: The file cannot be read, or the rows break the contract beyond its limits.
        NoChampion: No model has passed the gates yet.
    """
    for path in (source, target):
        if path.suffix not in (".parquet", ".csv"):
            raise BadInput(f"{path}: only .parquet and .csv are supported")
    limits = load_settings().validation.model_copy(update={"min_rows": 1})
    try:
        rows = read_rows(str(source))
        valid, findings = check_rows(rows, limits, partition=None, needs_label=False)
    except BROKEN_FILE as error:
        raise DataRejected(source.name, [broken_file(error)]) from error
    if findings.violations:
        raise DataRejected(source.name, findings.violations)
    champion = registry.require_champion()
    predictions = predict(features(valid), champion.name, int(champion.version))
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".csv":
        predictions.write_csv(target)
    else:
        predictions.write_parquet(target)
    return (
        f"{predictions.height} rows predicted by version {champion.version}, "
        f"{findings.invalid.height} left out as invalid → {target}"
    )
