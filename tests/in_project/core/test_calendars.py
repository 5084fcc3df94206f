"""Partitions where calendars are awkward: clocks that change, years' ends, other week starts."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from flight_delays.core.cadence import Cadence, Unit, Weekday
from flight_delays.core.errors import BadInput

BERLIN = "Europe/Berlin"
WEEKDAYS: tuple[Weekday, ...] = (
    *("monday", "tuesday", "wednesday", "thursday"),
    *("friday", "saturday", "sunday"),
)


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25)])
def test_a_day_on_which_the_clocks_change_has_other_hours(day: str, hours: int) -> None:
    cadence, hourly = Cadence("day", BERLIN), Cadence("hour", BERLIN)
    begin, end = cadence.start(day), cadence.end(day)
    assert end - begin == timedelta(hours=hours)
    moments = [begin + timedelta(hours=hour) for hour in range(hours)]
    names = [hourly.of(moment) for moment in moments]
    assert sorted(set(names)) == names
    assert names == hourly.window(names[-1], hours)
    assert {cadence.of(moment) for moment in moments} == {day}


def test_the_hour_that_comes_twice_is_two_partitions() -> None:
    hourly = Cadence("hour", BERLIN)
    first = datetime(2026, 10, 25, 2, 30)
    assert hourly.of(first) == "2026-10-25T00"
    assert hourly.of(first.replace(fold=1)) == "2026-10-25T01"


def test_a_midnight_that_does_not_exist_still_begins_its_day() -> None:
    cadence = Cadence("day", "Africa/Cairo")
    assert cadence.of(cadence.start("2026-04-24")) == "2026-04-24"
    assert cadence.end("2026-04-24") - cadence.start("2026-04-24") == timedelta(hours=23)


@pytest.mark.parametrize("week_start", WEEKDAYS)
def test_a_week_is_named_after_the_iso_week_of_its_fourth_day(week_start: Weekday) -> None:
    cadence = Cadence("week", week_start=week_start)
    for day in (date(2020, 12, 20) + timedelta(days=n) for n in range(800)):
        name = cadence.of(day)
        begin = cadence.start(name)
        assert begin.weekday() == WEEKDAYS.index(week_start)
        year, week, _ = (begin + timedelta(days=3)).isocalendar()
        assert name == f"{year}-W{week:02}"
        assert begin.date() <= day < cadence.end(name).date()


@pytest.mark.parametrize("unit", ["hour", "day", "week", "month"])
def test_partitions_follow_one_another_without_gap_and_in_text_order(unit: Unit) -> None:
    cadence = Cadence(unit, BERLIN)
    names = cadence.window(cadence.of(datetime(2027, 2, 3, tzinfo=UTC)), 60)
    assert names == sorted(names)
    assert len(set(names)) == 60
    for before, after in itertools.pairwise(names):
        assert cadence.end(before) == cadence.start(after)
        assert cadence.shift(before, 1) == after
        assert cadence.shift(after, -1) == before


def test_a_snapshot_has_one_partition() -> None:
    cadence = Cadence("none")
    assert cadence.window("all", 21) == ["all"]
    assert cadence.shift("all", 3) == "all"


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        ("hour", "2026-11-27T24"),
        ("hour", "2026-11-27"),
        ("day", "2026-02-30"),
        ("day", "20261127"),
        ("day", "٢٠٢٦-11-27"),
        ("day", "2026-11-27\n"),
        ("week", "2026-W54"),
        ("week", "2026-W00"),
        ("month", "2026-13"),
        ("month", "0000-01"),
        ("none", "2026"),
        ("day", ""),
    ],
)
def test_what_is_no_partition_is_refused_with_value_and_example(unit: Unit, text: str) -> None:
    cadence = Cadence(unit)
    with pytest.raises(BadInput) as caught:
        cadence.parse(text)
    example = cadence.of(date(2026, 1, 28)).replace("T00", "T14")
    assert f"'{text}'" in str(caught.value)
    assert str(caught.value).endswith(f"like {example}")


def test_no_partition_lies_before_the_calendar_begins() -> None:
    for unit, first in (("hour", "0001-01-01T00"), ("day", "0001-01-01"), ("month", "0001-01")):
        with pytest.raises(BadInput, match=f"no partition lies -1 from '{first}'"):
            Cadence(unit).shift(first, -1)  # type: ignore[arg-type]


@pytest.mark.parametrize("week_start", ["monday", "sunday", "friday"])
@pytest.mark.parametrize("unit", ["hour", "day", "week", "month"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_a_column_is_cut_as_its_values_are(unit: Unit, week_start: Weekday, zone: Any) -> None:
    cadence = Cadence(unit, BERLIN, week_start)
    moments = [datetime(2026, 1, 1) + timedelta(hours=7 * n) for n in range(1300)]
    column = pl.Series("at", moments).dt.replace_time_zone(
        zone, ambiguous="earliest", non_existent="null"
    )
    clock = cadence.clock(pl.col("at"), column.dtype)
    frame = pl.DataFrame({"at": column.drop_nulls()}).with_columns(
        cadence.names(clock).alias("name")
    )
    # No hour that does not exist on a Berlin clock.
    known = frame.drop_nulls()
    assert known.height >= frame.height - 1
    assert known["name"].to_list() == [cadence.of(moment) for moment in known["at"]]
    name = known["name"][700]
    held = known.filter(cadence.holds(clock, name))
    assert held["at"].to_list() == known.filter(pl.col("name") == name)["at"].to_list()


def test_a_column_of_dates_is_cut_without_a_zone() -> None:
    cadence = Cadence("week", "Asia/Tokyo", "sunday")
    days = pl.Series("day", [date(2026, 1, 1) + timedelta(days=n) for n in range(30)])
    names = days.to_frame().select(cadence.names(cadence.clock(pl.col("day"), days.dtype)))
    assert names["day"].to_list() == [cadence.of(day) for day in days]
