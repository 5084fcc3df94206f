"""Where rows come from, one file per kind of source."""

from __future__ import annotations

from typing import Protocol

from upath import UPath

from ..core.cadence import Partition
from ..core.errors import MissingPartitions
from ..core.settings import Settings


class Source(Protocol):
    """A table somewhere, cut into partitions."""

    def list_partitions(self) -> list[Partition]:
        """Return the partitions that are complete, oldest first."""

    def is_arriving(self, partition: Partition) -> bool:
        """Return whether a partition is there and not complete yet."""

    def snapshot(self, partition: Partition, folder: UPath) -> UPath:
        """Copy a partition's raw rows into a folder, and return the file.

        Its name is made from its content: the same rows give the same file.

        Raises:
            MissingPartitions: The source does not hold it.
            StillArriving: It is still being written.
            DataRejected: What it holds cannot be read, or is too large.
        """


def open_source(settings: Settings) -> Source:
    """Return the source that `[data]` names."""
    kind = settings.data.kind
    if kind == "table":
        from .table import Table

        return Table(settings)
    if kind == "sql":
        from .sql import Sql

        return Sql(settings)
    if kind == "delta":
        from .delta import Delta

        return Delta(settings)
    if kind == "python":
        from .python import Python

        return Python(settings)
    from .files import Files

    return Files(settings)


def require_partitions(settings: Settings) -> list[Partition]:
    """Return the partitions that the source holds, oldest first, one or more.

    Raises:
        MissingPartitions: The source holds none.
    """
    partitions = open_source(settings).list_partitions()
    if not partitions:
        data = settings.data
        pattern = f" matches '{data.file}'" if data.kind == "files" else ""
        raise MissingPartitions(
            f"no partition at '{data.address}'{pattern}: check [data] in config/pipeline.toml"
        )
    return partitions


def newest_partition(settings: Settings) -> Partition:
    """Return the newest partition of the source; raises like `require_partitions`."""
    return require_partitions(settings)[-1]
