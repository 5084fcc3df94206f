"""Rows from the team's own code: `partitions` and `read` of domain/source.py."""

from __future__ import annotations

import polars as pl
from upath import UPath

from ..core import storage
from ..core.cadence import Partition
from ..core.errors import DomainError, MissingPartitions
from ..core.settings import Settings
from ..interface import load_rows
from .read import limit_frame


class Python:
    """What the two functions of domain/source.py give."""

    def __init__(self, settings: Settings) -> None:
        self._cadence, self._rows = settings.data.cadence, load_rows()

    def list_partitions(self) -> list[Partition]:
        """Return what `partitions` gives, oldest first."""
        return sorted({self._cadence.parse(f"{name}") for name in self._rows.partitions()})

    def is_arriving(self, partition: Partition) -> bool:
        """Return False: what is there is complete."""
        return False

    def snapshot(self, partition: Partition, folder: UPath) -> UPath:
        """Write what `read` gives to a Parquet file. See `Source`."""
        rows = self._rows.read(partition)
        if isinstance(rows, pl.LazyFrame):
            rows = rows.collect()
        if not isinstance(rows, pl.DataFrame):
            kind = type(rows).__name__
            raise DomainError(
                f"domain/source.py: read('{partition}') returned a {kind}, not a polars frame"
            )
        if rows.is_empty():
            raise MissingPartitions(f"domain/source.py: read('{partition}') returned no rows")
        limit_frame(rows)
        return storage.write_by_content(folder, rows)
