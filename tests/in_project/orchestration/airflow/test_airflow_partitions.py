"""Which partition a scheduled DAG run is about: the last of its interval, in the data's zone."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import sandbox
from flight_delays.core.cadence import Cadence, Unit
from flight_delays.core.errors import BadInput, MissingPartitions
from flight_delays.orchestration.airflow.tasks import wanted_partition
from flight_delays.orchestration.runs import arrived


@pytest.mark.parametrize(
    ("cadence", "zone", "file", "partition"),
    [
        ("hour", "UTC", "{partition}.csv", "2026-01-31T22"),
        ("day", "UTC", "{partition}.csv", "2026-01-30"),
        # Midnight in Berlin: what has ended there is not yet over in UTC.
        ("day", "Europe/Berlin", "{partition}.csv", "2026-01-31"),
        ("week", "Europe/Berlin", "{partition}.csv", "2026-W04"),
        ("month", "Europe/Berlin", "{partition}.csv", "2026-01"),
        ("none", "UTC", "table.csv", "all"),
    ],
)
def test_a_scheduled_run_takes_what_ended_last(
    project: Path, cadence: str, zone: str, file: str, partition: str
) -> None:
    run = SimpleNamespace(
        run_type="scheduled", data_interval_end=datetime(2026, 1, 31, 23, 5, tzinfo=UTC)
    )
    variables = {"DATA__CADENCE": cadence, "DATA__TIME_ZONE": zone, "DATA__FILE": file}
    with sandbox.enter(project, variables):
        assert wanted_partition({"params": {}, "dag_run": run}) == partition
        chosen = {"params": {"partition": "chosen"}, "dag_run": run}
        assert wanted_partition(chosen) == "chosen"


def test_a_run_of_what_is_no_partition_waits_for_nothing(project: Path) -> None:
    assert arrived(sandbox.PARTITION) == sandbox.PARTITION
    assert arrived("2031-01-01") is None
    with pytest.raises(BadInput, match="'last week' is not a day like 2026-01-28"):
        arrived("last week")


@pytest.mark.parametrize(
    ("cadence", "file"),
    [("hour", "{partition}.csv"), ("day", "{partition}.parquet"), ("month", "{partition}.csv")],
)
def test_catching_up_waits_for_no_partition_of_a_gap(
    project: Path, cadence: Unit, file: str
) -> None:
    by = Cadence(cadence)
    last = by.last_ended(datetime.now(UTC))
    with sandbox.enter(project, {"DATA__CADENCE": cadence, "DATA__FILE": file}):
        assert arrived(last) is None
        for gone in (by.of(datetime(2013, 3, 1, tzinfo=UTC)), by.shift(last, -24)):
            with pytest.raises(MissingPartitions, match=f"lacks {gone}, which is so long over"):
                arrived(gone)
