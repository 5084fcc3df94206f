"""Rows of a query to any database that SQLAlchemy supports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from upath import UPath

from ..core import storage
from ..core.cadence import SNAPSHOT, Partition
from ..core.errors import MissingPartitions, SettingsError
from ..core.logs import get_logger
from ..core.paths import project_root
from ..core.settings import Settings
from ..interface import load_schema
from .cut import rows_of
from .database import connect, in_order, read_query

if TYPE_CHECKING:
    from sqlalchemy import Connection

log = get_logger(__name__)

_ALL_TIME = (datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))


class Sql:
    """A query with the bounds of a partition as its parameters.

    A partition is complete when it has ended.
    """

    def __init__(self, settings: Settings) -> None:
        self._data, self._cadence = settings.data, settings.data.cadence
        self._query = settings.data.query.strip().rstrip(";")
        if not self._query:
            raise SettingsError('kind = "sql" in [data] needs a query')
        self._time = load_schema().time_for(self._cadence)

    def list_partitions(self) -> list[Partition]:
        """Return the partitions that have rows and have ended, oldest first.

        The query asks for the distinct days, or hours, of the TIME column.
        """
        import sqlalchemy as sa

        if self._cadence.unit == "none":
            return [SNAPSHOT]
        time: sa.ColumnClause[Any] = sa.column(f"{self._time}")
        rows = sa.text(self._query).columns(time).subquery("rows_of_query")
        parts = ["year", "month", "day", *(["hour"] if self._cadence.unit == "hour" else [])]
        times = [sa.extract(part, rows.c[time.name]) for part in parts]
        days = sa.select(sa.func.count(), *times).group_by(*times)
        with self._connect() as connection:
            bounds = self._bounds(connection, *_ALL_TIME)
            if connection.dialect.name == "sqlite":
                # Any text, even if it is not a time.
                bounds = {"start": "", "end": "\U0010ffff"}
            found = connection.execute(days, bounds).all()
        if lost := sum(count for count, *row in found if None in row):
            log.warning(
                "%d rows of the query are of no partition: their %s cannot be read as a time",
                lost,
                self._time,
            )
        now = datetime.now(UTC)
        # When clocks are put back, an hour stands for two; of text, it is the first.
        folds = (0,) if connection.dialect.name == "sqlite" else (0, 1)
        partitions = {one for _, *row in found for one in self._partitions(row, folds)}
        return sorted(name for name in partitions if self._cadence.end(name) <= now)

    def is_arriving(self, partition: Partition) -> bool:
        """Return False: what is there is complete."""
        return False

    def snapshot(self, partition: Partition, folder: UPath) -> UPath:
        """Write the rows of a partition to a Parquet file. See `Source`.

        They are in the query's order, or else sorted: the same rows are the same file.
        """
        with self._connect() as connection:
            is_text = connection.dialect.name == "sqlite"
            start, end = self._cadence.start(partition), self._cadence.end(partition)
            frame = read_query(connection, self._query, self._bounds(connection, start, end))
        if is_text and self._cadence.unit == "hour" and frame.height:
            frame = rows_of(frame.lazy(), f"{self._time}", self._cadence, partition).collect()
        if frame.is_empty():
            raise MissingPartitions(f"the query in [data] gives no rows of partition {partition}")
        return storage.write_by_content(folder, in_order(frame, self._query))

    def _partitions(self, row: Sequence[Any], folds: tuple[int, ...]) -> Iterator[Partition]:
        if None not in row:
            year, month, day, hour = (*map(int, row), 0)[:4]
            moment = datetime(year, month, day, hour, tzinfo=ZoneInfo(self._cadence.zone))
            yield from {self._cadence.of(moment.replace(fold=fold)) for fold in folds}

    def _bounds(self, connection: Connection, start: datetime, end: datetime) -> dict[str, Any]:
        zone = ZoneInfo(self._cadence.zone)
        bounds: dict[str, Any] = {"start": start, "end": end}
        if self._cadence.unit == "none":
            return {}
        if connection.dialect.name == "sqlite":
            # It has no times, only text, which sorts a day's name before all times of that day.
            first, last = start.astimezone(zone), end.astimezone(zone)
            if last.time() != datetime.min.time():
                last += timedelta(days=1)
            return {"start": f"{first:%Y-%m-%d}", "end": f"{last:%Y-%m-%d}"}
        return {name: one.astimezone(zone) for name, one in bounds.items()}

    def _connect(self) -> AbstractContextManager[Connection]:
        return connect(self._data.source, project_root(), self._cadence.zone)
