"""featurize: validated rows to features and target, one file per day."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from ..core import storage
from ..core.errors import NotValidated
from ..core.logs import get_logger
from ..core.refs import DatasetRef, FeaturesRef, PartitionFile, Run
from ..core.stage import stage
from ..domain import problem
from ..domain.features import FEATURES, features

log = get_logger(__name__)

# Enough rows for stable quantiles; drift is measured against this sample for a model's lifetime.
REFERENCE_ROWS = 20_000


@stage
def featurize(run: Run, dataset: DatasetRef) -> FeaturesRef:
    """Compute features and target of every day, and split the days for training.

    For training, rows without a target are dropped and the newest `holdout_days` are set apart:
    the train stage never opens their files. For inference, every row is kept.

    Raises:
        NotValidated: `dataset` did not come from the validate stage.
    """
    if not dataset.validated:
        raise NotValidated(
            f"dataset {dataset.fingerprint} was never validated: featurize takes what the validate "
            "stage returns, not what ingest returns"
        )
    training = run.pipeline == "training"
    files = [
        _featurize_day(file, drop_unlabelled=training)
        for file in storage.read_manifest(dataset.uri)
    ]
    uri, fingerprint, rows = storage.write_dataset(run, "features", files)
    holdout_from = None
    reference_uri = None
    if training:
        holdout_from = run.partition - timedelta(days=run.settings.training.holdout_days - 1)
        learned = [file for file in files if file.partition < holdout_from]
        sample = storage.read_partitions(learned, list(FEATURES), about=REFERENCE_ROWS)
        path = storage.artifact_path("reference", f"{fingerprint}.parquet")
        reference_uri = storage.write_parquet(path, sample)
    holdout = sum(file.rows for file in files if holdout_from and file.partition >= holdout_from)
    log.info("%d features of %d rows, %d of them held out", len(FEATURES), rows, holdout)
    return FeaturesRef(
        uri=uri,
        rows=rows,
        holdout_rows=holdout,
        fingerprint=fingerprint,
        dataset_fingerprint=dataset.fingerprint,
        reference_uri=reference_uri,
        holdout_from=holdout_from,
        window=dataset.window,
    )


def _featurize_day(file: PartitionFile, *, drop_unlabelled: bool) -> PartitionFile:
    frame = features(storage.read_parquet(file.uri)).with_columns(problem.target().alias("target"))
    if drop_unlabelled:
        frame = frame.filter(pl.col("target").is_not_null())
    name = "features" if drop_unlabelled else "features-unlabelled"
    path = storage.artifact_path(name, f"{file.partition}", f"{file.fingerprint}.parquet")
    return storage.write_partition(path, file.partition, frame)
