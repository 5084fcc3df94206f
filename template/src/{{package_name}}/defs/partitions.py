"""Dagster's partitions: those of `[data] cadence`, from `[schedule] start_date` on."""

from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg

from ..core.cadence import SNAPSHOT, WEEKDAYS, Partition
from ..core.settings import Data, load_settings

DATA = load_settings().data
CADENCE = DATA.cadence


def definition(data: Data, start: str) -> dg.PartitionsDefinition[str]:
    """Return the partitions; the present one is there too, for sources that are filled in it.

    Args:
        data: How the data is cut.
        start: The first day.
    """
    options: dict[str, Any] = {"timezone": data.time_zone, "end_offset": 1}
    if data.unit == "hour":
        return dg.HourlyPartitionsDefinition(f"{start}T00", fmt="%Y-%m-%dT%H", end_offset=1)
    if data.unit == "day":
        return dg.DailyPartitionsDefinition(start, **options)
    if data.unit == "week":
        # Dagster counts from Sunday.
        first = (WEEKDAYS.index(data.week_start) + 1) % 7
        return dg.WeeklyPartitionsDefinition(start, day_offset=first, **options)
    if data.unit == "month":
        return dg.MonthlyPartitionsDefinition(start[:7], fmt="%Y-%m", **options)
    return dg.StaticPartitionsDefinition([SNAPSHOT])


PARTITIONS = definition(DATA, f"{load_settings().schedule.start_date}")


def key_of(partition: Partition) -> str:
    """Return what Dagster calls a partition: a week goes by the date of its first day."""
    if DATA.unit != "week":
        return partition
    return f"{CADENCE.start(partition).astimezone(ZoneInfo(DATA.time_zone)).date()}"


def partition_of(key: str) -> Partition:
    """Return the partition that Dagster calls so."""
    return CADENCE.of(date.fromisoformat(key)) if DATA.unit == "week" else key
