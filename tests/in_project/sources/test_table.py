"""A table as a source: cut by its time column, in the zone of the data."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import sandbox
from flight_delays.core import storage
from flight_delays.core.errors import DataRejected, MissingPartitions
from flight_delays.core.refs import Run
from flight_delays.core.settings import load_settings
from flight_delays.sources import open_source
from flight_delays.stages.ingest import ingest
from flight_delays.stages.validate import validate


def rows_of(partition: str) -> pl.DataFrame:
    """Return the rows of a partition's copy."""
    source = open_source(load_settings())
    path = source.snapshot(partition, storage.artifact_path("raw"))
    assert source.snapshot(partition, storage.artifact_path("raw")) == path
    return storage.read_parquet(str(path))


def run_of_the_last_day() -> Run:
    return Run(pipeline="inference", partition=sandbox.day(0), key="k", tracking_run_id="known")


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


def test_a_date_to_come_makes_no_partition_and_completes_none(
    project: Path, tmp_path: Path
) -> None:
    today = datetime.now(UTC).date()
    days = [today - timedelta(days=1), today, date(2205, 1, 1), date(2206, 1, 1)]
    pl.DataFrame({"date": days}).write_parquet(tmp_path / "table.parquet")
    variables = {"DATA__KIND": "table", "DATA__SOURCE": str(tmp_path / "table.parquet")}
    with sandbox.enter(project, variables):
        assert open_source(load_settings()).list_partitions() == [f"{days[0]}"]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_row_without_a_time_goes_with_the_row_before_and_into_quarantine(
    project: Path, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"table.{suffix}"
    days = [sandbox.sample(sandbox.day(back)) for back in (-1, 0)]
    # A file may begin with one, and a day may end with two.
    bad = {0, days[0].height - 1, days[0].height + 7, days[0].height + 8}
    time = pl.when(pl.int_range(pl.len()).is_in(list(bad)))
    rows = pl.concat(days)
    if suffix == "csv":
        rows.with_columns(time.then(pl.lit("n/a")).otherwise("date").alias("date")).write_csv(path)
    else:
        # More than one group of rows, from which a reader could skip.
        rows = rows.with_columns(time.then(None).otherwise("date").alias("date"))
        rows.write_parquet(path, row_group_size=50)
    variables = {"DATA__KIND": "table", "DATA__SOURCE": str(path), "DATA__CADENCE": "day"}
    with sandbox.enter(project, variables):
        assert [rows_of(sandbox.day(back)).height for back in (-1, 0)] == [
            day.height for day in days
        ]
        run = run_of_the_last_day()
        raw = ingest(run)
        valid = validate(run, raw)
        assert (raw.rows, valid.rows) == (rows.height, rows.height - len(bad))
        assert valid.metrics["rows_quarantined"] == len(bad)


def test_a_file_of_a_folder_that_lacks_a_column_is_rejected_with_what_to_do(
    project: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "table"
    folder.mkdir()
    sandbox.sample(sandbox.day(-1)).write_parquet(folder / "0.parquet")
    sandbox.sample(sandbox.day(0)).drop("distance").write_parquet(folder / "1.parquet")
    variables = {"DATA__KIND": "table", "DATA__SOURCE": str(folder), "DATA__CADENCE": "day"}
    said = r"distance has no value in any of \d+ rows: do the files lack the column\?"
    with sandbox.enter(project, variables):
        run = run_of_the_last_day()
        raw = ingest(run)
        with pytest.raises(DataRejected, match=said):
            validate(run, raw)


def test_a_csv_that_is_written_otherwise_is_named_with_the_place_to_say_how(
    project: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "table"
    folder.mkdir()
    sandbox.sample().write_parquet(folder / "0.parquet")
    (folder / "next.csv").write_text("date;distance\n28.01.2013;1.234,5;\n")
    with (
        sandbox.enter(project, {"DATA__KIND": "table", "DATA__SOURCE": str(folder)}),
        pytest.raises(DataRejected, match=r"next\.csv: .* \(how a CSV is written stands in \[data"),
    ):
        open_source(load_settings()).list_partitions()


def test_a_table_in_which_no_time_can_be_read_says_so(project: Path, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("date,carrier\n13/27/2026,AA\n13/28/2026,AA\n")
    with (
        sandbox.enter(project, {"DATA__KIND": "table", "DATA__SOURCE": str(path)}),
        pytest.raises(DataRejected, match="no row has a time in 'date' that can be read"),
    ):
        open_source(load_settings()).list_partitions()


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
