"""Hostile files, given to ingest and validate inside a generated project.

Whatever a file holds, both stages end well or raise an error of the project that names the day.
"""

from __future__ import annotations

import gzip
import io
import os
import random
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sandbox
from flight_delays.core.errors import DataRejected, MissingPartitions
from flight_delays.core.refs import Pipeline, Run
from flight_delays.core.settings import load_settings
from flight_delays.stages.ingest import ingest
from flight_delays.stages.validate import BROKEN_FILE, validate
from hostile_examples import examples
from hypothesis import HealthCheck, assume, given
from hypothesis import strategies as st

DAY = "2013-01-28"
DAYS = ["2013-01-26", "2013-01-27", DAY]
VARIABLES = {
    "TRAINING__WINDOW": "3",
    "TRAINING__WIDER_WINDOW": "3",
    "TRAINING__HOLDOUT": "1",
    "MONITORING__WINDOW": "1",
    # What hangs must not hang the test.
    "LIMITS__STAGE_TIMEOUT_MINUTES": "0.5",
}
ROWS = sandbox.sample(DAY)
PARQUET = sandbox.as_parquet(ROWS)
CSV = ROWS.write_csv().encode()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the source folder of a project, with good files of the days before."""
    root = tmp_path_factory.mktemp("hostile") / "project"
    (root / "config").mkdir(parents=True)
    (root / "config" / "pipeline.toml").write_text(sandbox.CONFIG)
    variables = sandbox.source_of(root / "source", DAYS)
    with sandbox.enter(root, VARIABLES | variables):
        yield root / "source"


def check(pipeline: Pipeline, name: str = "{partition}.parquet") -> str:
    """Take the newest day through both stages; returns why it was rejected, or nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIPELINE_DATA__FILE", name)
        load_settings.cache_clear()
        run = Run(pipeline=pipeline, partition=DAY, key="hostile", tracking_run_id="known")
        said = f"{DAY}"
        try:
            validate(run, ingest(run))
        except (DataRejected, MissingPartitions) as error:
            said = str(error)
        finally:
            load_settings.cache_clear()
    assert f"{DAY}" in said
    return "" if said == f"{DAY}" else said


def deliver(source: Path, content: bytes, suffix: str = "parquet") -> None:
    """Make that the content of the newest day, and nothing else of it."""
    for file in source.glob(f"{DAY}*"):
        file.unlink()
    (source / f"{DAY}.{suffix}").write_bytes(content)


BOTH: tuple[Pipeline, ...] = ("training", "inference")
PIPELINES = st.sampled_from(BOTH)

# --- bytes ---------------------------------------------------------------------------------------

Change = Callable[[bytes], bytes]


def _at(position: float, data: bytes) -> int:
    return int(position * len(data))


def flip(position: float, bit: int) -> Change:
    def change(data: bytes) -> bytes:
        at = min(_at(position, data), len(data) - 1)
        return data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]

    return change


def insert(position: float, what: bytes) -> Change:
    return lambda data: data[: _at(position, data)] + what + data[_at(position, data) :]


def overwrite(position: float, what: bytes) -> Change:
    def change(data: bytes) -> bytes:
        at = _at(position, data)
        return data[:at] + what + data[at + len(what) :]

    return change


def cut(first: float, last: float) -> Change:
    return lambda data: data[: _at(min(first, last), data)] + data[_at(max(first, last), data) :]


def damage(data: bytes, changes: list[Change], least: bytes) -> bytes:
    """Apply changes one after another; where one leaves nothing, `least` is left."""
    for change in changes:
        data = change(data) or least
    return data


# Often near the end, where a Parquet file describes itself.
POSITIONS = st.floats(0, 1) | st.floats(0.8, 1)
CHANGES = st.one_of(
    st.builds(flip, POSITIONS, st.integers(0, 7)),
    st.builds(overwrite, POSITIONS, st.binary(min_size=1, max_size=9)),
    st.builds(insert, POSITIONS, st.binary(min_size=1, max_size=9)),
    st.builds(cut, POSITIONS, POSITIONS),
)


@examples(120, suppress_health_check=list(HealthCheck))
@given(changes=st.lists(CHANGES, min_size=1, max_size=4), pipeline=PIPELINES)
def test_a_damaged_parquet(source: Path, changes: list[Change], pipeline: Pipeline) -> None:
    deliver(source, damage(PARQUET, changes, b"P"))
    check(pipeline)


@examples(80, suppress_health_check=list(HealthCheck))
@given(changes=st.lists(CHANGES, min_size=1, max_size=4), pipeline=PIPELINES)
def test_a_damaged_csv(source: Path, changes: list[Change], pipeline: Pipeline) -> None:
    deliver(source, damage(CSV, changes, b","), "csv")
    _good_days_as_csv(source)
    check(pipeline, "{partition}.csv")


def _good_days_as_csv(source: Path) -> None:
    for day in DAYS[:-1]:
        file = source / f"{day}.csv"
        if not file.exists():
            sandbox.sample(day).write_csv(file)


# --- values and types ----------------------------------------------------------------------------

TYPES: list[Any] = [
    *(pl.String, pl.Binary, pl.Boolean, pl.Null, pl.Categorical, pl.Date, pl.Time, pl.Int8),
    *(
        pl.UInt64,
        pl.Int64,
        pl.Float64,
        pl.Duration("us"),
        pl.Datetime("ns", "UTC"),
        pl.Datetime("ms"),
    ),
    *(pl.List(pl.Int64), pl.Decimal(38, 2), pl.Float32),
]
VALUES: list[Any] = [
    *(None, "", "x" * 1_000_000, "\x00", "=cmd|'/C calc'!A0", '"\n,;', "日本 🚀 \u202e"),
    *(2**63 - 1, -(2**63), 2**64 - 1, float("nan"), float("inf"), -0.0, 1e308, True, b"\xff\x00"),
    *(date.min, date.max, datetime.max, timedelta.max, Decimal("1e30")),
    *([], [1, None], [[["deep"]]], {"a": {"b": [1]}}, {}),
]
NAMES = [
    *("__row__", "__index__", "failed_checks", "failed_checks_right", "check", "index", "column"),
    *("", " ", "date ", "DATE", "\x00", "x" * 100_000, "日本", "a.b", "^.*$", "*", "flight"),
]
COLUMNS = st.sampled_from(ROWS.columns)
Edit = Callable[[pl.DataFrame], pl.DataFrame]


def retype(column: str, dtype: Any) -> Edit:
    return lambda rows: rows.with_columns(pl.col(column).cast(dtype, strict=False))


def nest(column: str, how: str) -> Edit:
    nested = {
        "list": pl.col(column).implode().over(pl.int_range(pl.len())),
        "struct": pl.struct(pl.col(column).alias("inner")),
        "structs": pl.struct(pl.struct(pl.col(column).alias("a")).alias("b"), pl.col(column)),
    }
    return lambda rows: rows.with_columns(nested[how].alias(column))


def put(column: str, value: Any, share: float) -> Edit:
    def edit(rows: pl.DataFrame) -> pl.DataFrame:
        some = int(share * rows.height)
        if some in (0, rows.height):
            return rows.with_columns(pl.Series(column, [value] * rows.height))
        kept = rows[column].to_list()
        return rows.with_columns(pl.Series(column, [value] * some + kept[some:]))

    return edit


def extreme_days(column: str, day: int) -> Edit:
    """Dates that no calendar of Python's has."""
    return lambda rows: rows.with_columns(pl.lit(day, pl.Int32).cast(pl.Date).alias(column))


def extreme_times(column: str, moment: int, unit: Any) -> Edit:
    return lambda rows: rows.with_columns(
        pl.lit(moment, pl.Int64).cast(pl.Datetime(unit)).alias(column)
    )


def rename(column: str, name: str) -> Edit:
    return lambda rows: rows.rename({column: name})


def copied(column: str, name: str) -> Edit:
    return lambda rows: rows.with_columns(pl.col(column).alias(name))


ANY_COLUMN = COLUMNS | st.sampled_from(NAMES)
EDITS = st.one_of(
    st.builds(retype, COLUMNS, st.sampled_from(TYPES)),
    st.builds(nest, COLUMNS, st.sampled_from(["list", "struct", "structs"])),
    st.builds(put, ANY_COLUMN, st.sampled_from(VALUES), st.sampled_from([0.002, 0.02, 0.5, 1])),
    st.builds(extreme_days, ANY_COLUMN, st.sampled_from([2**31 - 1, -(2**31), 3_000_000])),
    st.builds(
        extreme_times, ANY_COLUMN, st.sampled_from([2**63 - 1, -(2**63) + 1, 10**18]),
        st.sampled_from(["ms", "us", "ns"]),
    ),
    st.builds(rename, COLUMNS, st.sampled_from(NAMES)),
    st.builds(copied, COLUMNS, st.sampled_from(NAMES)),
    st.builds(lambda column: lambda rows: rows.drop(column), COLUMNS),
    st.sampled_from([
        lambda rows: rows.clear(),
        lambda rows: rows.select([]),
        lambda rows: pl.concat([rows] * 3),
        lambda rows: rows.reverse(),
        lambda rows: rows.head(1),
    ]),
)  # fmt: skip


@examples(200, suppress_health_check=list(HealthCheck))
@given(
    edits=st.lists(EDITS, min_size=1, max_size=4),
    bad_row=st.booleans(),
    pipeline=PIPELINES,
    suffix=st.sampled_from(["parquet", "parquet", "csv"]),
)
def test_odd_values_types_and_columns(
    source: Path, edits: list[Edit], bad_row: bool, pipeline: Pipeline, suffix: str
) -> None:
    rows = ROWS
    try:
        # One row that is quarantined takes all of its columns along.
        for edit in [*([put("distance", 3, 0.002)] if bad_row else []), *edits]:
            rows = edit(rows)
        data = sandbox.as_parquet(rows) if suffix == "parquet" else rows.write_csv().encode()
    except (*BROKEN_FILE, TypeError, OverflowError, ValueError):
        assume(False)
    deliver(source, data, suffix)
    _good_days_as_csv(source)
    check(pipeline, f"{{partition}}.{suffix}")


# --- text ----------------------------------------------------------------------------------------

HEAD, *LINES = CSV.decode().splitlines()
TEXTS: dict[str, bytes] = {
    "with a byte order mark": b"\xef\xbb\xbf" + CSV,
    "as UTF-16": CSV.decode().encode("utf-16"),
    "in several encodings": CSV.replace(b"EWR", "Zoë".encode("latin-1"), 3),
    "of another separator": CSV.replace(b",", b";"),
    "with Windows line ends": CSV.replace(b"\n", b"\r\n"),
    "with old line ends": CSV.replace(b"\n", b"\r"),
    "without an end": CSV + b'"',
    "with an open quote": CSV.replace(b"EWR", b'"EWR', 1),
    "with line breaks in quotes": CSV.replace(b"EWR", b'"E\nW""R"', 5),
    "with formulas": CSV.replace(b"EWR", b'"=HYPERLINK(""http://x"")"', 5),
    "with NUL": CSV.replace(b"EWR", b"E\x00R", 5),
    "of a header only": HEAD.encode(),
    "of no header": "\n".join(LINES).encode(),
    "with a column twice": "\n".join(f"{x},{x.split(',')[0]}" for x in (HEAD, *LINES)).encode(),
    "of one very long line": HEAD.encode() + b"\n" + b"x" * 5_000_000,
    "of very many columns": ",".join(f"c{n}" for n in range(2_000)).encode() + b"\n1\n",
    "of numbers without end": CSV.replace(b"EWR", b"9" * 100_000, 3),
    "of blank lines": b"\n" * 100_000,
    "that is a page": b"<html><body>502 Bad Gateway</body></html>",
    "that is an archive": b"PK\x03\x04" + bytes(1000),
    "that is compressed": gzip.compress(CSV),
    "that is a small bomb": gzip.compress(bytes(5_000_000)),
    "that is random": random.Random(0).randbytes(20_000),
    "of zero bytes": b"",
    "that ends early": CSV[: len(CSV) // 2],
}
SAME = ("with a byte order mark", "with Windows line ends")


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_file(source: Path, kind: str, suffix: str) -> None:
    deliver(source, TEXTS[kind], suffix)
    _good_days_as_csv(source)
    said = {check(pipeline, f"{{partition}}.{suffix}") for pipeline in BOTH}
    if suffix == "parquet":
        assert "" not in said
    elif kind in SAME:
        assert said == {""}


# --- what is no file -----------------------------------------------------------------------------


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "part-0.parquet").write_bytes(PARQUET)


NO_FILES: dict[str, Callable[[Path], object]] = {
    "a folder": _folder,
    "a link to nothing": lambda path: path.symlink_to(path.with_name("nothing")),
    "a link to itself": lambda path: path.symlink_to(path),
    "a pipe": os.mkfifo,
    "a device without end": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file(tmp_path: Path, source: Path, kind: str) -> None:
    folder = tmp_path / "source"
    variables = sandbox.source_of(folder, DAYS[:-1])
    NO_FILES[kind](folder / f"{DAY}.parquet")
    with sandbox.enter(source.parent, VARIABLES | variables):
        for pipeline in BOTH:
            assert "is not a file" in check(pipeline)


@pytest.mark.parametrize(
    "name",
    [
        "{partition}",
        "{x} {partition}{}",
        "%s;$(id)'\"{partition}#?&",
        "日本\u202e {partition}",
        ".{partition}",
    ],
)
def test_a_file_name_of_odd_characters(tmp_path: Path, source: Path, name: str) -> None:
    folder = tmp_path / "so ur%20ce#?"
    folder.mkdir()
    for day in DAYS:
        content = sandbox.as_parquet(sandbox.sample(day))
        (folder / f"{name}.parquet".replace("{partition}", f"{day}")).write_bytes(content)
    with sandbox.enter(source.parent, VARIABLES | {"DATA__SOURCE": str(folder)}):
        assert check("training", f"{name}.parquet") == ""


def test_a_link_to_a_file_of_the_source_is_a_file(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "source"
    variables = sandbox.source_of(folder, DAYS)
    file = folder / f"{DAY}.parquet"
    file.rename(folder / "elsewhere")
    file.symlink_to(folder / "elsewhere")
    with sandbox.enter(source.parent, VARIABLES | variables):
        assert check("training") == ""


def test_the_mutations_reach_both_ends(source: Path) -> None:
    """A good file passes, and a bad one is told by name: else nothing above would prove much."""
    deliver(source, PARQUET)
    assert check("training") == check("inference") == ""
    buffer = io.BytesIO()
    ROWS.drop("distance").write_parquet(buffer)
    deliver(source, buffer.getvalue())
    assert "missing_column: distance" in check("training")
