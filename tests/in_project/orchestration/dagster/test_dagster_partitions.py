"""Dagster's partitions follow the cadence of the data."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest
from flight_delays.core import optional
from flight_delays.core.cadence import WEEKDAYS, Weekday
from flight_delays.core.settings import Data


def partitions() -> Any:
    """Return the module of the partitions."""
    return optional.load("defs.partitions")


@pytest.mark.parametrize("week_start", WEEKDAYS)
@pytest.mark.parametrize("cadence", ["hour", "day", "week", "month"])
@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_dagster_has_the_partitions_of_the_cadence(
    monkeypatch: pytest.MonkeyPatch, cadence: str, week_start: Weekday, zone: str
) -> None:
    module = partitions()
    data = Data.model_validate({"cadence": cadence, "week_start": week_start, "time_zone": zone})
    monkeypatch.setattr(module, "DATA", data)
    monkeypatch.setattr(module, "CADENCE", data.cadence)
    now = datetime(2026, 11, 27, 14, 30, tzinfo=UTC)
    keys = module.definition(data, "2026-01-01").get_partition_keys(current_time=now)

    names = [module.partition_of(key) for key in keys]
    assert names == data.cadence.span(names[0], data.cadence.of(now))
    assert [module.key_of(name) for name in names] == keys
    assert data.cadence.shift(names[0], -1) < data.cadence.of(datetime(2026, 1, 8, tzinfo=UTC))


def test_a_snapshot_is_one_partition_in_dagster() -> None:
    data = Data.model_validate({"cadence": "none"})
    made = partitions().definition(data, "2026-01-01")
    assert isinstance(made, dg.StaticPartitionsDefinition)
    assert made.get_partition_keys() == ["all"]
