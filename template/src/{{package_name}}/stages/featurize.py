"""featurize: validated rows to features and target, split for training."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import polars as pl

from ..core import storage
from ..core.context import Context
from ..core.errors import BadInput, NotValidated
from ..core.logs import get_logger
from ..core.refs import DatasetRef, FeaturesRef, PartitionFile, Run
from ..core.settings import Settings
from ..core.stage import stage
from ..interface import load_features, load_problem, load_schema
from ..ml import splits
from ..sources.reference import load_references, reference_fingerprint
from .ingest import window_of

log = get_logger(__name__)

# Enough rows for stable quantiles; drift is measured against this sample for a model's lifetime.
REFERENCE_ROWS = 20_000


@stage
def featurize(run: Run, dataset: DatasetRef) -> FeaturesRef:
    """Compute features and target of every partition, and split them for training.

    For training, rows without a target are dropped, partitions with too few of them are left out,
    and some rows are set apart, as `[training] split` says: the train stage never opens their
    files. For inference, every row is kept.

    Raises:
        NotValidated: `dataset` did not come from the validate stage.
        BadInput: A feature equals the target, the same KEY would be on both sides of the split,
            too few partitions have labels, one side has one class or value only, or the split
            cannot be made.
    """
    if not dataset.validated:
        raise NotValidated(
            f"dataset {dataset.fingerprint} was never validated: featurize takes what the validate "
            "stage returns, not what ingest returns"
        )
    files = _featurize_all(run, dataset)
    if run.pipeline == "training":
        return _split_for_training(run, dataset, files)
    uri, fingerprint, rows = storage.write_dataset(run, "features", files)
    log.info("%d features of %d rows", len(load_features().names), rows)
    return FeaturesRef(
        uri=uri, rows=rows, fingerprint=fingerprint, dataset_fingerprint=dataset.fingerprint
    )


def _featurize_all(run: Run, dataset: DatasetRef) -> list[PartitionFile]:
    """Write the features of each partition of the window, with the partitions to look back on.

    The ones before the window are only looked back on: nothing learns from them. Neither does
    training from partitions that have too few labels yet.
    """
    settings = run.settings.training
    least = settings.min_labelled_share if run.pipeline == "training" else 0.0
    lookback = load_features().lookback
    known = {file.partition: file for file in storage.read_manifest(dataset.uri)}
    window = window_of(run, dataset.window)
    # A snapshot is the only partition, whatever the lookback.
    files = [known[one] for one in window[lookback:] or window if one in known]
    # Neighbours look back on the same partitions.
    read = functools.lru_cache(lookback + 1)(storage.read_parquet)
    tables = load_references(run.settings)
    known_by = [reference_fingerprint(run.settings)] if tables else []
    made = []
    for file in files:
        wanted = run.settings.data.cadence.window(file.partition, 1 + lookback)
        missing = [one for one in wanted if one not in known]
        if missing and file.partition == run.partition:
            gone = ", ".join(missing)
            log.warning("features look back on %s, of which there are no valid rows", gone)
        there = [known[one] for one in wanted if one in known]
        *before, rows = [read(one.uri) for one in there]
        # Named after everything that the features are made from.
        name = storage.fingerprint(*(one.fingerprint for one in there), *known_by)
        context = Context.of(rows, before, tables)
        written = _featurize_partition(run, file, name, rows, context)
        if written.rows >= least * rows.height:
            made.append(written)
        else:
            labels = f"{written.rows} of {rows.height} rows have a target"
            log.info("%s is left out until its labels are in: %s", file.partition, labels)
    if run.pipeline == "training":
        _refuse_too_few(run, made, files)
    return made


def _refuse_too_few(
    run: Run, made: Sequence[PartitionFile], files: Sequence[PartitionFile]
) -> None:
    settings = run.settings.training
    if run.settings.splits_by_time and len(made) <= settings.holdout + settings.gap:
        share = settings.min_labelled_share
        raise BadInput(
            f"{len(made)} of {len(files)} partitions up to {run.partition} have a target"
            f"{f' in {share:.0%} of their rows' if share else ''}, and {settings.holdout} are held "
            "out: widen window, train for an earlier partition, or lower "
            f"{'min_labelled_share' if share else 'holdout'} in [training]"
        )


def _featurize_partition(
    run: Run, file: PartitionFile, name: str, rows: pl.DataFrame, context: Context
) -> PartitionFile:
    frame = load_problem().with_target(load_features().of(rows, context))
    kind = "features-unlabelled"
    if run.pipeline == "training":
        kind, frame = "features", frame.filter(pl.col("target").is_not_null())
    path = storage.artifact_path(kind, file.partition, f"{name}.parquet")
    return storage.write_partition(path, file.partition, frame)


def _split_for_training(
    run: Run, dataset: DatasetRef, files: Sequence[PartitionFile]
) -> FeaturesRef:
    names, settings = list(load_features().names), run.settings
    _refuse_target_among(names, files)
    if settings.splits_by_time:
        learned, held = splits.by_time(files, settings.training.holdout, settings.training.gap)
        if settings.split == "time_and_group":
            learned = _without_groups_of(held, learned)
    else:
        learned, held = _split_rows(settings, files)
    _refuse_one_value("to learn from", learned)
    _refuse_one_value("that are held out", held)
    uri, learned_fingerprint, rows = storage.write_dataset(run, "features", learned)
    holdout_uri, held_fingerprint, holdout_rows = storage.write_dataset(run, "holdout", held)
    fingerprint = storage.fingerprint(learned_fingerprint, held_fingerprint)
    sample = storage.read_partitions(learned, [*names, "target"], about=REFERENCE_ROWS)
    path = storage.artifact_path("reference", f"{fingerprint}.parquet")
    log.info(
        "%d features of %d rows; %d more held out (%s)",
        len(names),
        rows,
        holdout_rows,
        settings.split,
    )
    return FeaturesRef(
        uri=uri,
        holdout_uri=holdout_uri,
        rows=rows + holdout_rows,
        holdout_rows=holdout_rows,
        fingerprint=fingerprint,
        dataset_fingerprint=dataset.fingerprint,
        reference_uri=storage.write_parquet(path, sample),
        holdout_from=held[0].partition,
        window=dataset.window,
    )


def _refuse_one_value(what: str, files: Sequence[PartitionFile]) -> None:
    targets = [storage.read_parquet(file.uri, ["target"])["target"] for file in files]
    target = pl.concat(targets) if targets else pl.Series()
    splits.refuse_one_value(target, what, [file.partition for file in files])


def _refuse_target_among(names: list[str], files: Sequence[PartitionFile]) -> None:
    _refuse_one_value("of the window", files)
    suspects = names
    for file in files:
        frame = storage.read_parquet(file.uri, [*names, "target"])
        suspects = splits.equal_columns(frame, suspects, "target")
        if not suspects:
            return
    raise BadInput(
        f"feature '{suspects[0]}' equals the target in every row: take it out of FEATURES in "
        "domain/features.py"
    )


def _group_of(split: str) -> tuple[str, ...]:
    if group := load_schema().group:
        return group
    raise BadInput(f'[training] split is "{split}", but domain/schema.py names no GROUP')


def _without_groups_of(
    held: Sequence[PartitionFile], learned: Sequence[PartitionFile]
) -> list[PartitionFile]:
    """Write what is learned from without the rows of groups that are held out."""
    groups = storage.read_partitions(held, list(_group_of("time_and_group"))).unique()
    known_by = [*groups.columns, *(file.fingerprint for file in held)]
    kept = []
    for file in learned:
        rows = splits.without_groups(storage.read_parquet(file.uri), groups)
        name = f"{storage.fingerprint(file.fingerprint, *known_by)}.parquet"
        path = storage.artifact_path("features-learned", file.partition, name)
        if rows.height:
            kept.append(storage.write_partition(path, file.partition, rows))
    if not kept:
        raise BadInput(
            f"each of the {groups.height} groups ({', '.join(groups.columns)}) is in the holdout, "
            'so nothing is left to learn from: take split = "time" or "group" in [training]'
        )
    return kept


def _split_rows(
    settings: Settings, files: Sequence[PartitionFile]
) -> tuple[list[PartitionFile], list[PartitionFile]]:
    """Write the rows of each partition to a file to learn from and one that is held out."""
    key, group = load_schema().key, _group_of("group") if settings.split == "group" else ()
    columns = list(dict.fromkeys((*key, *group, "target")))
    rows = storage.read_partitions(files, columns)
    groups = rows.select(group)
    training = settings.training
    held = splits.by_row(rows["target"], groups, training.holdout_share, training.seed)
    _refuse_shared_keys(rows.filter(~held).select(key), rows.filter(held).select(key))
    sides: tuple[list[PartitionFile], list[PartitionFile]] = ([], [])
    first = 0
    for file in files:
        mask = pl.Series(held[first : first + file.rows])
        first += file.rows
        frame = storage.read_parquet(file.uri)
        name = f"{storage.fingerprint(file.fingerprint, mask.to_numpy().tobytes())}.parquet"
        for side, kind, wanted in zip(sides, ("learned", "held-out"), (~mask, mask), strict=True):
            if wanted.any():
                path = storage.artifact_path(f"features-{kind}", file.partition, name)
                part = storage.write_partition(path, file.partition, frame.filter(wanted))
                side.append(part)
    return sides


def _refuse_shared_keys(learned: pl.DataFrame, held: pl.DataFrame) -> None:
    if learned.width and (shared := splits.shared_rows(learned, held)):
        raise BadInput(
            f"{shared} held-out rows have a KEY ({', '.join(learned.columns)}) that is also "
            "in the rows to learn from: name what stays together as GROUP in domain/schema.py and "
            'set split = "group" in [training]'
        )
