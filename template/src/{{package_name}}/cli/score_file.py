"""Scoring of a single file by the champion, outside any pipeline run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..core import registry
from ..core.errors import BadInput, DataRejected
from ..core.settings import load_settings
from ..domain.features import features
from ..stages.score import predict
from ..stages.validate import BROKEN_FILE, broken_file, check_rows, read_rows


@dataclass(frozen=True)
class ScoredFile:
    """How many rows were predicted and left out, and by which registry version."""

    rows: int
    invalid: int
    version: int


def score_file(source: Path, target: Path) -> ScoredFile:
    """Predict the rows of a Parquet or CSV file; writes key columns, prediction and version.

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
    return ScoredFile(predictions.height, findings.invalid.height, int(champion.version))
