"""A table as a source: cut by its time column, in the zone of the data."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import sandbox
from flight_delays.core import storage
from flight_delays.core.errors import DataRejected, MissingPartitions
from flight_delays.core.settings import load_settings
from flight_delays.sources import open_source


def rows_of(partition: str) -> pl.DataFrame:
    """Return the rows of a partition's copy."""
    source = open_source(load_settings())
    path = source.snapshot(partition, storage.artifact_path("raw"))
    assert source.snapshot(partition, storage.artifact_path("raw")) == path
    return storage.read_parquet(str(path))


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("folder", [False, True])
def test_a_table_is_cut_into_weeks(
    project: Path, tmp_path: Path, suffix: str, folder: bool
) -> None:
    days = [sandbox.sample(sandbox.day(-back)) for back in reversed(range(14))]
    parts = [pl.concat(days[:5]), pl.concat(days[5:])] if folder else [pl.concat(days)]
    for number, part in enumerate(parts):
        # Folders in it, too.
        path = tmp_path / "table" / f"year={number}" / f"0.{suffix}"
        path.parent.mkdir(parents=True)
        part.write_csv(path) if suffix == "csv" else part.write_parquet(path)
    source = tmp_path / "table" if folder else tmp_path / "table" / "year=0" / f"0.{suffix}"
    variables = {
        "DATA__KIND": "table",
        "DATA__SOURCE": str(source),
        "DATA__CADENCE": "week",
    }
    with sandbox.enter(project, variables):
        # 28 January 2013 is a Monday.
        assert open_source(load_settings()).list_partitions() == [
            "2013-W03",
            "2013-W04",
            "2013-W05",
        ]
        assert rows_of("2013-W04").height == sum(day.height for day in days[6:13])
        assert rows_of("2013-W05").height == days[13].height
        with pytest.raises(MissingPartitions, match="no rows of partition 2013-W06"):
            rows_of("2013-W06")


def test_what_has_not_ended_yet_is_no_partition(project: Path, tmp_path: Path) -> None:
    today = datetime.now(UTC).date()
    days = [today - timedelta(days=back) for back in (2, 1, 0)]
    pl.DataFrame({"date": days}).write_parquet(tmp_path / "table.parquet")
    variables = {"DATA__KIND": "table", "DATA__SOURCE": str(tmp_path / "table.parquet")}
    with sandbox.enter(project, variables):
        assert open_source(load_settings()).list_partitions() == [f"{day}" for day in days[:2]]


def test_a_table_without_a_cadence_is_taken_whole(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "table"
    folder.mkdir()
    sandbox.sample().write_parquet(folder / "table.parquet")
    variables = {
        "DATA__KIND": "table",
        "DATA__SOURCE": str(folder),
        "DATA__CADENCE": "none",
    }
    with sandbox.enter(project, variables):
        assert open_source(load_settings()).list_partitions() == ["all"]
        assert rows_of("all").height == sandbox.sample().height
    with sandbox.enter(project, variables | {"DATA__SOURCE": str(tmp_path / "gone")}):
        assert open_source(load_settings()).list_partitions() == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pl.DataFrame({"day": [1]}), "date is missing, not a date or datetime"),
        (pl.DataFrame({"date": [1]}), "date is Int64, not a date or datetime"),
        (b"PAR1 cut off", "unreadable_file"),
    ],
)
def test_a_table_that_cannot_be_cut_says_why(
    project: Path, tmp_path: Path, content: pl.DataFrame | bytes, said: str
) -> None:
    path = tmp_path / "table.parquet"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content.write_parquet(path)
    with (
        sandbox.enter(project, {"DATA__KIND": "table", "DATA__SOURCE": str(path)}),
        pytest.raises(DataRejected, match=said),
    ):
        open_source(load_settings()).list_partitions()
