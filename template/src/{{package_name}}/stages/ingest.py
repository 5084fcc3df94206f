"""ingest: take a snapshot of the window's partitions, so that a run can be repeated."""

from __future__ import annotations

import hashlib
import io
from datetime import date

from ..core import storage
from ..core.errors import DataRejected, MissingPartitions
from ..core.logs import get_logger
from ..core.outcomes import Violation, Window
from ..core.refs import DatasetRef, PartitionFile, Run
from ..core.settings import Settings
from ..core.stage import stage
from ..sources.files import list_partitions, partition_path

log = get_logger(__name__)


@stage
def ingest(run: Run, window: Window = "normal") -> DatasetRef:
    """Copy the window's partitions from the source to the artefact root, byte for byte.

    Args:
        run: The run; training takes `window_days` up to its partition, inference the monitoring
            window as far as the source has it.
        window: `wider` takes the wider training window.

    Raises:
        MissingPartitions: A day of the training window, or the partition itself, is missing.
        DataRejected: A file is empty or unreadable, or one day's file equals another's.
    """
    files = []
    for day in _available_days(run, window):
        try:
            files.append(_snapshot(run.settings, day))
        except DataRejected as error:
            # An earlier bad day must not keep today's from being scored.
            if run.pipeline == "training" or day == run.partition:
                raise
            log.warning("%s is left out: %s", day, error)
    _refuse_duplicates(files)
    uri, fingerprint, rows = storage.write_dataset(run, "raw", files)
    source = run.settings.data.source
    log.info("read %d rows of %d partitions from %s", rows, len(files), source)
    return DatasetRef(uri=uri, rows=rows, fingerprint=fingerprint, window=window)


def wider_window_is_available(run: Run) -> bool:
    """Tell whether the source holds every day of the wider window, and it is really wider."""
    available = set(list_partitions(run.settings))
    wider = _days_of(run, "wider")
    return len(wider) > run.settings.training.window_days and available.issuperset(wider)


def _days_of(run: Run, window: Window) -> list[date]:
    settings = run.settings
    if run.pipeline == "inference":
        return settings.window(run.partition, settings.monitoring.window_days)
    training = settings.training
    days = training.window_days if window == "normal" else training.wider_window_days
    return settings.window(run.partition, days)


def _available_days(run: Run, window: Window) -> list[date]:
    available = set(list_partitions(run.settings))
    days = _days_of(run, window)
    if run.pipeline == "inference":
        days = [day for day in days if day in available or day == run.partition]
    missing = [f"{day}" for day in days if day not in available]
    if missing:
        raise MissingPartitions(
            f"'{run.settings.data.source}' lacks {len(missing)} of {len(days)} partitions: "
            f"{', '.join(missing[:10])}{' …' if len(missing) > 10 else ''}. Deliver them, or "
            "choose a smaller window in config/pipeline.toml"
        )
    return days


def _reject(day: date, check: str, detail: str) -> DataRejected:
    return DataRejected(f"{day}", [Violation(check=check, detail=detail)])


def _snapshot(settings: Settings, day: date) -> PartitionFile:
    source = partition_path(settings, day)
    # Some programs write a folder under a file's name; a pipe would be waited for.
    if storage.is_local(source) and not source.is_file():
        raise _reject(day, "unreadable_file", f"{source} is not a file")
    data = source.read_bytes()
    digest = hashlib.sha256(data).hexdigest()[:16]
    rows = _count_rows(day, source.suffix, data)
    target = storage.artifact_path("raw", f"{day}", f"{digest}{source.suffix}")
    # The name is the content, so an existing file is the same file.
    if not target.exists():
        storage.write_bytes(target, data)
    return PartitionFile(partition=day, uri=str(target), rows=rows, fingerprint=digest)


def _count_rows(day: date, suffix: str, data: bytes) -> int:
    import polars as pl

    if not data:
        raise _reject(day, "empty_file", "the file has no bytes")
    try:
        scan = pl.scan_csv if suffix == ".csv" else pl.scan_parquet
        return int(scan(io.BytesIO(data)).select(pl.len()).collect().item())
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise _reject(day, "unreadable_file", f"{error}") from error


def _refuse_duplicates(files: list[PartitionFile]) -> None:
    seen: dict[str, date] = {}
    for file in files:
        if file.fingerprint in seen:
            detail = f"the file equals that of {seen[file.fingerprint]}"
            raise _reject(file.partition, "duplicate_partition", detail)
        seen[file.fingerprint] = file.partition
