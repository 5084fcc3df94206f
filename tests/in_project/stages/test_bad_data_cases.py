"""Bad data: more of what is rejected, and how files may be written.

The project's own tests have the cases that every team meets.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import sandbox
from deliveries import DAY, DAYS, Case, Inbox, assert_stopped, deliver, put
from flight_delays.core import storage
from flight_delays.core.errors import DataRejected
from flight_delays.core.refs import FeaturesRef
from flight_delays.core.settings import load_settings
from flight_delays.sources import open_source
from flight_delays.stages.featurize import featurize
from flight_delays.stages.ingest import ingest
from flight_delays.stages.start import start
from flight_delays.stages.validate import validate
from polars import selectors
from sandbox import Trained


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return the folder that `deliver` makes the source of the pipeline."""
    return tmp_path / "source"


def corrupt(rows: pl.DataFrame) -> bytes:
    """Return a Parquet file whose footer is whole and whose pages are not."""
    data = sandbox.as_parquet(rows)
    return data[:200] + bytes(1000) + data[1200:]


REJECTED: dict[str, Case] = {
    "wrong type of date": (
        lambda rows: rows.with_columns(pl.col("date").dt.to_string("%d/%m/%Y")),
        "wrong_type: date is String, not Date",
    ),
    "target of no type": (
        lambda rows: rows.with_columns(pl.lit(None).alias("arr_delay")),
        "null_target: arr_delay is null in {rows} of {rows} rows",
    ),
    "no target": (lambda rows: rows.drop("arr_delay"), "missing_column: arr_delay"),
    "no rows": (lambda rows: rows.clear(), "too_few_rows: 0 rows"),
    "empty file": (lambda rows: b"", "empty_file: "),
    "corrupt Parquet": (corrupt, "unreadable_file: "),
    "no Parquet at all": (lambda rows: b"<html>not found</html>", "unreadable_file: "),
    "the day before again": (
        lambda rows: (sandbox.SAMPLE / f"{DAYS[-2]}.parquet").read_bytes(),
        f"duplicate_partition: the file equals that of {DAYS[-2]}",
    ),
    "rows of the next day among them": (
        lambda rows: pl.concat([rows, sandbox.sample(sandbox.day(1)).head(1)]),
        f"wrong_partition: 1 rows are of another day ({sandbox.day(1)})",
    ),
    "all rows twice": (lambda rows: pl.concat([rows, rows]), "invalid_rows: "),
    "value that does not fit": (
        lambda rows: put("distance", 99_999, 0.1)(rows.cast({"distance": pl.Int64})),
        "invalid_rows: 31 of {rows} rows break the contract, at most 5% may (distance: fits Int16",
    ),
    "not a number": (put("temp", float("nan"), 0.1), "invalid_rows: 31 of {rows}"),
}


@pytest.mark.parametrize("case", REJECTED)
def test_bad_data_is_rejected_told_and_reported(
    trained: Trained, source: Path, inbox: Inbox, case: str
) -> None:
    assert_stopped(trained, source, inbox, REJECTED[case])


def test_the_report_names_rows_and_columns(trained: Trained, source: Path) -> None:
    rows = put("distance", -1, 0.1)(sandbox.sample())
    with sandbox.enter(trained.root, deliver(source, rows)):
        run = start("training", DAY)
        raw = ingest(run)
        with pytest.raises(DataRejected) as caught:
            validate(run, raw)
        (*good, bad) = json.loads(Path(caught.value.report_uri).read_text())["partitions"]
        file = storage.read_manifest(raw.uri)[-1].fingerprint + ".parquet"
        quarantined = storage.read_parquet(str(storage.artifact_path("quarantine", f"{DAY}", file)))
    assert [day["violations"] for day in good] == [[]] * 4
    assert bad["partition"] == f"{DAY}"
    assert bad["quarantined"] == quarantined.height == 31
    ((check, count),) = bad["failed_checks"].items()
    assert check.startswith("distance: in_range")
    assert count == 31
    assert bad["first_invalid_rows"][0]["flight"] == rows["flight"][0]


def test_a_second_copy_of_a_file_under_another_name_is_not_read(
    trained: Trained, source: Path
) -> None:
    variables = deliver(source, sandbox.sample())
    for name in (f"{DAY} (1).parquet", f"{DAY}.parquet.bak", f"copy-{DAY}.parquet", "README"):
        (source / name).write_bytes(b"not a partition")
    with sandbox.enter(trained.root, variables):
        assert open_source(load_settings()).list_partitions() == DAYS


# --- how files are written ---------------------------------------------------------------------


def featurized() -> FeaturesRef:
    """Take the current source from raw data to features."""
    run = start("training", DAY)
    return featurize(run, validate(run, ingest(run)))


def feature_files() -> list[str]:
    """Return the fingerprints of each day's features."""
    return [file.fingerprint for file in storage.read_manifest(featurized().uri)]


WRITERS: dict[str, Callable[[pl.DataFrame, Path], object]] = {
    "CSV": lambda rows, path: rows.write_csv(path),
    "CSV with columns in another order": lambda rows, path: rows.select(
        reversed(rows.columns)
    ).write_csv(path),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_csv_gives_the_features_of_the_parquet(
    trained: Trained, source: Path, writer: str
) -> None:
    with sandbox.enter(trained.root, sandbox.SMALL):
        expected = feature_files()
    with sandbox.enter(
        trained.root, sandbox.SMALL | sandbox.source_of(source, DAYS, WRITERS[writer])
    ):
        assert feature_files() == expected


def test_the_width_of_numbers_does_not_matter(trained: Trained, source: Path) -> None:
    wide = sandbox.sample().with_columns(
        selectors.integer().cast(pl.Int64), selectors.float().cast(pl.Float64)
    )
    with sandbox.enter(trained.root, sandbox.SMALL):
        expected = feature_files()
    with sandbox.enter(trained.root, deliver(source, wide)):
        assert feature_files() == expected


def test_whole_floats_are_integers_as_pandas_writes_them(trained: Trained, source: Path) -> None:
    floats = sandbox.sample().with_columns(selectors.integer().cast(pl.Float64))
    with sandbox.enter(trained.root, sandbox.SMALL):
        expected = feature_files()
    with sandbox.enter(trained.root, deliver(source, floats)):
        assert feature_files() == expected


@pytest.mark.parametrize("content", [b"PAR1 cut off", None], ids=["unreadable", "too few rows"])
def test_an_earlier_bad_day_does_not_keep_today_from_being_scored(
    trained: Trained, source: Path, content: bytes | None
) -> None:
    variables = deliver(source, sandbox.sample())
    earlier = source / f"{DAYS[-2]}.parquet"
    if content is None:
        pl.read_parquet(earlier).head(3).write_parquet(earlier)
    else:
        earlier.write_bytes(content)
    with sandbox.enter(trained.root, variables):
        run = start("inference", DAY)
        days = [file.partition for file in storage.read_manifest(validate(run, ingest(run)).uri)]
    assert DAYS[-1] in days
    assert DAYS[-2] not in days


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        (b"distance", b"length", "missing_column: distance"),
        (b"\n2013", b"\n2013-01-28,UA,1,EWR,IAH,515,819,1400,1,1,1,1,1,1,1\n2013", "unreadable"),
    ],
)
def test_a_broken_csv_is_rejected(
    trained: Trained, source: Path, before: bytes, after: bytes, problem: str
) -> None:
    variables = sandbox.source_of(source, DAYS, WRITERS["CSV"])
    file = source / f"{DAY}.csv"
    assert before in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(before, after, 1))
    with sandbox.enter(trained.root, sandbox.SMALL | variables):
        run = start("training", DAY)
        with pytest.raises(DataRejected) as caught:
            validate(run, ingest(run))
    assert str(caught.value.violations[0]).startswith(problem)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b",UA,", b",UA,word"),
        (b"\n2013-01-28,UA", b"\n2013-13-13,UA"),
    ],
)
def test_one_word_of_a_csv_that_is_no_number_or_date_is_a_bad_row(
    trained: Trained, source: Path, before: bytes, after: bytes
) -> None:
    variables = sandbox.source_of(source, DAYS, WRITERS["CSV"])
    file = source / f"{DAY}.csv"
    file.write_bytes(file.read_bytes().replace(before, after, 1))
    with sandbox.enter(trained.root, sandbox.SMALL | variables):
        run = start("training", DAY)
        assert validate(run, ingest(run)).metrics["rows_quarantined"] == 1


def test_one_number_of_a_csv_that_does_not_fit_is_a_bad_row(trained: Trained, source: Path) -> None:
    variables = sandbox.source_of(source, DAYS, WRITERS["CSV"])
    rows = sandbox.sample("2013-01-28").cast({"distance": pl.Int64})
    put("distance", 99_999, 0.5 / rows.height)(rows).write_csv(source / f"{DAY}.csv")
    with sandbox.enter(trained.root, sandbox.SMALL | variables):
        run = start("training", DAY)
        assert validate(run, ingest(run)).metrics["rows_quarantined"] == 1
