"""Partitions: slices of the data by time, each known by its text form.

An hour is `2026-11-27T14` (in UTC, so that none occurs twice when the clocks change), a day
`2026-11-27`, a week `2026-W48`, a month `2026-11`; a table without time is one partition, `all`.
Text order is time order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args
from zoneinfo import ZoneInfo

from .errors import BadInput

if TYPE_CHECKING:
    import polars as pl

Partition: TypeAlias = str
Ambiguous = Literal["earliest", "latest"]
Unit = Literal["hour", "day", "week", "month", "none"]
Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]

# The only partition of a table that is read in its current state.
SNAPSHOT: Partition = "all"

_PATTERNS = {
    "hour": r"\d{4}-\d{2}-\d{2}T([01]\d|2[0-3])",
    "day": r"\d{4}-\d{2}-\d{2}",
    "week": r"\d{4}-W\d{2}",
    "month": r"\d{4}-\d{2}",
    "none": SNAPSHOT,
}
# For polars.
_FORMATS = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "week": "%G-W%V", "month": "%Y-%m"}
_STEPS = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7)}
WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)


@dataclass(frozen=True)
class Cadence:
    """How a table is cut into partitions.

    Attributes:
        unit: What a partition spans.
        zone: The time zone in which days, weeks and months begin.
        week_start: A week's first day; the week is named after the ISO week of its fourth day.
    """

    unit: Unit = "day"
    zone: str = "UTC"
    week_start: Weekday = "monday"

    @property
    def pattern(self) -> str:
        """A regular expression of the partitions' names."""
        return _PATTERNS[self.unit]

    def parse(self, text: str) -> Partition:
        """Return a text as a partition.

        Raises:
            BadInput: It does not name a partition of this cadence.
        """
        try:
            if re.fullmatch(self.pattern, text, re.ASCII):
                self._begin(text)
                return text
        except (ValueError, OverflowError):
            pass
        example = self.of(datetime(2026, 1, 28, 14, tzinfo=UTC))
        kind = "the snapshot" if self.unit == "none" else f"a {self.unit}"
        raise BadInput(f"partition '{text}' is not {kind} like {example}")

    def of(self, moment: date) -> Partition:
        """Return the partition of a moment; one without a zone is in the data's zone."""
        if self.unit == "none":
            return SNAPSHOT
        if not isinstance(moment, datetime):
            moment = datetime(moment.year, moment.month, moment.day)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=ZoneInfo(self.zone))
        return self._name(moment.astimezone(self._clock_zone).replace(tzinfo=None))

    def start(self, partition: Partition) -> datetime:
        """Return when a partition begins, in UTC; a snapshot begins with time itself."""
        if self.unit == "none":
            return datetime.min.replace(tzinfo=UTC)
        return self._begin(partition).replace(tzinfo=self._clock_zone).astimezone(UTC)

    def end(self, partition: Partition) -> datetime:
        """Return when the next partition begins, in UTC; a snapshot never ends."""
        if self.unit == "none":
            return datetime.max.replace(tzinfo=UTC)
        return self.start(self.shift(partition, 1))

    def shift(self, partition: Partition, count: int) -> Partition:
        """Return the partition that comes `count` after one, or before it; a snapshot is alone.

        Raises:
            BadInput: It would be outside the years 1 to 9999.
        """
        if self.unit == "none":
            return partition
        try:
            begin = self._begin(partition)
            if self.unit != "month":
                return self._name(begin + count * _STEPS[self.unit])
            year, month = divmod(begin.year * 12 + begin.month - 1 + count, 12)
            return self._name(datetime(year, month + 1, 1))
        except (ValueError, OverflowError):
            raise BadInput(f"no partition lies {count} from '{partition}'") from None

    def last_ended(self, moment: datetime) -> Partition:
        """Return the newest partition that has ended by then: the one a scheduled run processes."""
        return self.shift(self.of(moment), -1)

    def window(self, partition: Partition, count: int) -> list[Partition]:
        """Return the `count` partitions up to and including one, oldest first."""
        if self.unit == "none":
            return [partition]
        return [self.shift(partition, -back) for back in reversed(range(count))]

    def span(self, first: str, last: str) -> list[Partition]:
        """Return the partitions from one to another, oldest first; raises like `parse`."""
        partition, last = self.parse(first), self.parse(last)
        found = []
        while partition <= last:
            found.append(partition)
            if partition == last:
                break
            partition = self.shift(partition, 1)
        return found

    def clock(
        self,
        time: pl.Expr,
        dtype: pl.DataType,
        ambiguous: Ambiguous = "earliest",
    ) -> pl.Expr:
        """Return dates or datetimes in the zone that partitions are cut in, without a zone.

        Args:
            time: The column.
            dtype: Its type.
            ambiguous: Which one an hour without zone means if it occurs twice.
        """
        import polars as pl

        zone = getattr(dtype, "time_zone", None)
        time = time.cast(pl.Datetime("us", zone))
        if zone is None and self._clock_zone.key != self.zone:
            time = time.dt.replace_time_zone(self.zone, ambiguous=ambiguous, non_existent="null")
            zone = self.zone
        if zone is not None:
            time = time.dt.convert_time_zone(self._clock_zone.key).dt.replace_time_zone(None)
        return time

    def holds(self, clock: pl.Expr, partition: Partition) -> pl.Expr:
        """Return whether times by the clock are in a partition."""
        begin, end = self._begin(partition), self._begin(self.shift(partition, 1))
        return (clock >= begin) & (clock < end)

    def names(self, clock: pl.Expr) -> pl.Expr:
        """Return the partitions that times by the clock are in."""
        return (clock - self._week_offset).dt.to_string(_FORMATS[self.unit])

    @property
    def _clock_zone(self) -> ZoneInfo:
        return ZoneInfo("UTC" if self.unit == "hour" else self.zone)

    @property
    def _week_offset(self) -> timedelta:
        """How long after an ISO week's Monday the week of its name begins: -3 to 3 days."""
        if self.unit != "week":
            return timedelta()
        return timedelta(days=(WEEKDAYS.index(self.week_start) + 3) % 7 - 3)

    def _begin(self, partition: Partition) -> datetime:
        """Return the first moment of a partition by the clock."""
        if self.unit == "none":
            return datetime.min
        if self.unit == "week":
            year, week = partition.split("-W")
            return datetime.fromisocalendar(int(year), int(week), 1) + self._week_offset
        return datetime.fromisoformat(f"{partition}-01" if self.unit == "month" else partition)

    def _name(self, clock: datetime) -> Partition:
        if self.unit == "week":
            year, week, _ = (clock - self._week_offset).isocalendar()
            return f"{year:04}-W{week:02}"
        length = {"hour": 13, "day": 10, "month": 7}[self.unit]
        return clock.isoformat()[:length]
