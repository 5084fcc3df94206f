"""One table with a time column, in a file or in a folder of files, cut into partitions."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
from upath import UPath

from ..core import storage
from ..core.cadence import SNAPSHOT, Partition
from ..core.errors import DataRejected, MissingPartitions, StillArriving
from ..core.outcomes import Violation
from ..core.settings import SUFFIXES, Settings
from ..interface import load_schema
from .arrival import MOST_LOOKS, growing
from .cut import clock_of, rows_of
from .files import address, refuse_links_out
from .read import TooLarge, broken_file, limit_frame, limit_rows, read_file, violation_of

_BROKEN = (*broken_file(), OSError)


class Table:
    """A table that grows; the contract's TIME column says which partition a row belongs to.

    A partition is complete when it has ended.
    """

    def __init__(self, settings: Settings) -> None:
        self._data, self._cadence = settings.data, settings.data.cadence
        self._time = load_schema().time_for(self._cadence)

    def list_partitions(self) -> list[Partition]:
        """Return the partitions that are complete, oldest first."""
        files = self._files()
        if not files:
            return []
        if self._cadence.unit == "none":
            return [] if self.is_arriving(SNAPSHOT) else [SNAPSHOT]
        try:
            rows = self._scan(files)
            clock = clock_of(rows, f"{self._time}", self._cadence)
            names = rows.select(self._cadence.names(clock.dt.truncate("1h")).alias("name").unique())
            found: list[Partition | None] = names.sort("name").collect()["name"].to_list()
        except _BROKEN as error:
            if self.is_arriving(SNAPSHOT):
                return []
            raise DataRejected(self._data.address, [violation_of(error)]) from None
        if found == [None]:
            detail = f"no row has a time in '{self._time}' that can be read, like 2026-11-27"
            unreadable = Violation(check="no_time", detail=detail, column=self._time)
            raise DataRejected(self._data.address, [unreadable])
        now = datetime.now(UTC)
        return [name for name in found if name and self._cadence.end(name) <= now]

    def is_arriving(self, partition: Partition) -> bool:
        """Return whether a file of the table is still being written."""
        return bool(growing(lambda: {partition: self._files()}, self._data.settle_seconds))

    def snapshot(self, partition: Partition, folder: UPath) -> UPath:
        """Copy a partition's rows to a Parquet file. See `Source`."""
        if all(self.is_arriving(partition) for _ in range(MOST_LOOKS)):
            raise StillArriving(f"the table at '{self._data.address}' is still being written")
        files = self._files()
        if not files:
            raise MissingPartitions(f"there is no table at '{self._data.address}'")
        try:
            rows = self._scan(files)
            if self._cadence.unit != "none":
                rows = rows_of(rows, f"{self._time}", self._cadence, partition)
            limit_rows(rows.select(pl.len()).collect().item())
            frame = limit_frame(rows.collect())
        except _BROKEN as error:
            raise DataRejected(partition, [violation_of(error)]) from None
        if frame.is_empty():
            raise MissingPartitions(f"'{self._data.address}' has no rows of partition {partition}")
        return storage.write_by_content(folder, frame)

    def _files(self) -> list[UPath]:
        source = address(self._data)
        if source.is_dir():
            found = [path for path in source.glob("**/*") if path.name.endswith(SUFFIXES)]
            for path in found:
                refuse_links_out(self._data.address, path, source)
            return sorted(found, key=str)
        return [source] if source.exists() else []

    def _scan(self, files: list[UPath]) -> pl.LazyFrame:
        frames = []
        for path in files:
            if path.suffix == ".parquet" and storage.is_local(path):
                frames.append(pl.scan_parquet(str(path)))
            else:
                try:
                    frames.append(read_file(path).lazy())
                except TooLarge:
                    raise
                except broken_file() as error:
                    detail = f"{path.name}: {violation_of(error).detail}"
                    if ".csv" in path.suffixes:
                        detail += " (how a CSV is written stands in [data.csv] of the settings)"
                    raise ValueError(detail) from error
        return frames[0] if len(frames) == 1 else pl.concat(frames, how="diagonal_relaxed")
