"""ingest: take a snapshot of the window's partitions, so that a run can be repeated."""

from __future__ import annotations

from datetime import UTC, datetime

from ..core import storage
from ..core.cadence import SNAPSHOT, Partition
from ..core.errors import DataRejected, MissingPartitions, StillArriving
from ..core.logs import get_logger
from ..core.outcomes import Violation, Window
from ..core.refs import DatasetRef, PartitionFile, Run
from ..core.stage import stage
from ..interface import load_features
from ..sources import Source, open_source
from ..sources.read import TooLarge, broken_file, count_rows, suffix_of, violation_of

log = get_logger(__name__)


@stage
def ingest(run: Run, window: Window = "normal") -> DatasetRef:
    """Copy the window's partitions from the source to the artefact root, value for value.

    Earlier partitions that are missing, cannot be read or are still being written are left out.

    Args:
        run: The run; training takes `window` partitions up to its own, inference the monitoring
            window. Those that features look back on come before it.
        window: `wider` takes the wider training window.

    Raises:
        MissingPartitions: The run's own partition is missing, or too many of the training window.
        StillArriving: The run's own partition is still being written.
        DataRejected: The run's own partition is empty, unreadable or too large.
    """
    source = open_source(run.settings)
    wanted, missing = _wanted_partitions(run, window, source)
    left_out = [_violation(one, "missing_partition", "not at the source") for one in missing]
    files = []
    for partition in wanted:
        try:
            files.append(_snapshot(source, partition))
        except (DataRejected, MissingPartitions, StillArriving, PermissionError) as error:
            # An earlier bad partition does not stop the run.
            if partition == run.partition:
                raise
            left_out += _reasons(partition, error)
    if left_out:
        log.warning("partitions left out: %s", "; ".join(map(str, left_out)))
    uri, fingerprint, rows = storage.write_dataset(run, "raw", files)
    address = run.settings.data.address
    log.info("read %d rows of %d partitions from %s", rows, len(files), address)
    return DatasetRef(
        uri=uri, rows=rows, fingerprint=fingerprint, window=window, left_out=tuple(left_out)
    )


def wider_window_is_available(run: Run) -> bool:
    """Return whether the source holds more of the wider window than of the normal one."""
    there = set(open_source(run.settings).list_partitions())
    wider, normal = (there.intersection(window_of(run, size)) for size in ("wider", "normal"))
    return len(wider) > len(normal)


def window_of(run: Run, window: Window) -> list[Partition]:
    """Return the partitions that a run works on, after those that they look back on."""
    settings = run.settings
    count = settings.training.window if window == "normal" else settings.training.wider_window
    if run.pipeline == "inference":
        count = settings.monitoring.window
    return settings.data.cadence.window(run.partition, count + load_features().lookback)


def least_share(run: Run) -> float:
    """Return the share of the window that must be there and good; scoring needs only its own."""
    return run.settings.training.min_partitions_share if run.pipeline == "training" else 0.0


def _wanted_partitions(
    run: Run, window: Window, source: Source
) -> tuple[list[Partition], list[Partition]]:
    """Return the partitions of the window that are at the source, and those that are missing."""
    there = set(source.list_partitions())
    if run.partition not in there:
        # It may have become whole between two looks.
        arriving = source.is_arriving(run.partition)
        there |= {run.partition} if arriving else set(source.list_partitions())
    wanted = window_of(run, window)
    if run.pipeline == "inference":
        # Nothing is missing from the time before the source begins.
        wanted = [one for one in wanted if one >= min(there | {run.partition})]
    missing = [one for one in wanted if one not in there]
    ends = run.settings.data.cadence.end(run.partition)
    if run.partition in missing and run.partition != SNAPSHOT and ends > datetime.now(UTC):
        raise MissingPartitions(
            f"partition {run.partition} ends at {ends:%Y-%m-%d %H:%M} UTC and is not complete "
            "before: run it then, or choose an earlier one"
        )
    least = least_share(run)
    if run.partition in missing or len(wanted) - len(missing) < least * len(wanted):
        share = f"; {least:.0%} of the window must be there (min_partitions_share in [training])"
        raise MissingPartitions(
            f"'{run.settings.data.address}' lacks {len(missing)} of {len(wanted)} partitions: "
            f"{'… ' if len(missing) > 10 else ''}{', '.join(missing[-10:])}. Deliver them, or "
            f"choose another partition or a smaller window{share if least else ''}"
        )
    return [one for one in wanted if one in there], missing


def _snapshot(source: Source, partition: Partition) -> PartitionFile:
    try:
        path = source.snapshot(partition, storage.artifact_path("raw", partition))
    except TooLarge as error:
        raise DataRejected(partition, [violation_of(error)]) from None
    try:
        rows = count_rows(path)
    except broken_file() as error:
        raise DataRejected(partition, [violation_of(error)]) from None
    digest = path.name.removesuffix(suffix_of(path.name))
    return PartitionFile(
        partition=partition, uri=storage.address_of(path), rows=rows, fingerprint=digest
    )


def _reasons(partition: Partition, error: Exception) -> list[Violation]:
    if isinstance(error, DataRejected):
        return [one.model_copy(update={"partition": partition}) for one in error.violations]
    checks = {StillArriving: "still_arriving", PermissionError: "unreadable_file"}
    return [_violation(partition, checks.get(type(error), "missing_partition"), str(error))]


def _violation(partition: Partition, check: str, detail: str) -> Violation:
    return Violation(check=check, detail=detail, partition=partition)
