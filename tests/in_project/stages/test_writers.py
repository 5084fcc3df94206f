"""What other programs write by default: the same rows come out, and nothing is lost in silence.

Each writer gets the same table and writes it as it does when nobody tells it otherwise.
"""

from __future__ import annotations

import csv
import gzip
import json
import logging
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd  # type: ignore[import-untyped]
import pandera.polars as pa
import polars as pl
import pyarrow
import pytest
import sandbox
from flight_delays.core.errors import SettingsError
from flight_delays.core.settings import load_settings
from flight_delays.interface import Schema
from flight_delays.sources import read as reading
from flight_delays.sources.conform import conform
from flight_delays.stages import validate
from flight_delays.stages.ingest import ingest
from flight_delays.stages.start import start
from polars.testing import assert_frame_equal
from pyarrow import csv as pyarrow_csv
from pyarrow import parquet as pyarrow_parquet

ROWS = pl.DataFrame(
    {
        "day": [date(2026, 1, 5), date(2026, 1, 5), date(2026, 1, 5)],
        "count": [1, None, 30_000],
        "amount": [1.5, -2.25, None],
        "word": ["Zoë", "a;b,c", None],
        "kind": ["x", "y", "x"],
        "flag": [True, None, False],
        "at": [datetime(2026, 1, 5, 12, 30), None, datetime(2026, 1, 5)],
        "instant": [datetime(2026, 1, 5, 12, 30, tzinfo=UTC)] * 3,
        "price": [Decimal("1.50"), None, Decimal("-2.00")],
    },
    schema={
        "day": pl.Date,
        "count": pl.Int16,
        "amount": pl.Float32,
        "word": pl.String,
        "kind": pl.Enum(["x", "y"]),
        "flag": pl.Boolean,
        "at": pl.Datetime("us"),
        "instant": pl.Datetime("us", "UTC"),
        "price": pl.Decimal(10, 2),
    },
)
CONTRACT = pa.DataFrameSchema(
    {name: pa.Column(dtype, nullable=True) for name, dtype in ROWS.schema.items()}
)
# As pandas makes it of a database's rows: objects, with all its own ideas of types.
PANDAS = pd.DataFrame(ROWS.to_dicts())
NUMPY = PANDAS.assign(day=pd.to_datetime(PANDAS["day"]), price=PANDAS["price"].astype(float))
ARROW = ROWS.to_arrow()

Writer = Callable[[Path], Any]


def through_duckdb(name: str, options: str = "") -> Writer:
    """Return what writes the table with DuckDB's COPY."""

    def write(folder: Path) -> None:
        table = ROWS.with_columns(pl.col("kind").cast(pl.String)).to_arrow()
        connection = duckdb.connect()
        connection.register("rows", table)
        connection.execute(f"COPY rows TO '{folder / name}' {options}")

    return write


def with_csv(folder: Path) -> None:
    with (folder / "rows.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ROWS.columns)
        writer.writeheader()
        writer.writerows(ROWS.to_dicts())


def with_json(folder: Path) -> None:
    lines = (json.dumps(row, default=str, ensure_ascii=False) for row in ROWS.to_dicts())
    (folder / "rows.jsonl").write_text("\n".join(lines))


def compressed(name: str, pack: Callable[[bytes], bytes]) -> Writer:
    def write(folder: Path) -> None:
        ROWS.write_csv(folder / "plain")
        (folder / name).write_bytes(pack((folder / "plain").read_bytes()))
        (folder / "plain").unlink()

    return write


def zstd(data: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as packed:
        packed.write(data)
    return bytes(sink.getvalue())


def beyond(folder: Path) -> None:
    """Write columns that the contract does not name, of all kinds."""
    ROWS.with_columns(
        pl.lit([[1, 2]]).alias("list"),
        pl.struct("day", "count").alias("struct"),
        pl.lit(b"\xff").alias("bytes"),
        pl.lit(time(12)).alias("time"),
        pl.lit(None).alias("nothing"),
    ).write_parquet(folder / "rows.parquet")


def with_map_and_dictionary(folder: Path) -> None:
    table = ARROW.append_column(
        "pairs", pyarrow.array([[("a", 1)]] * 3, pyarrow.map_(pyarrow.string(), pyarrow.int64()))
    )
    words = table["word"].dictionary_encode()
    table = table.set_column(table.column_names.index("word"), "word", words)
    pyarrow_parquet.write_table(table, folder / "rows.parquet")


def old_spark(folder: Path) -> None:
    """Text as plain bytes, and times of nanoseconds as Hive keeps them."""
    word = ARROW.column_names.index("word")
    table = ARROW.set_column(word, "word", ARROW["word"].cast(pyarrow.large_binary()))
    pyarrow_parquet.write_table(
        table, folder / "rows.parquet", use_deprecated_int96_timestamps=True
    )


GERMAN = {"DATA__CSV__SEPARATOR": ";", "DATA__CSV__DECIMAL_COMMA": "true"}
WRITERS: dict[str, tuple[Writer, dict[str, str]]] = {
    "polars Parquet": (lambda to: ROWS.write_parquet(to / "rows.parquet"), {}),
    "polars CSV": (lambda to: ROWS.write_csv(to / "rows.csv"), {}),
    "polars CSV, tabs": (
        lambda to: ROWS.write_csv(to / "rows.csv", separator="\t"),
        {"DATA__CSV__SEPARATOR": "\t"},
    ),
    "polars CSV, BOM": (lambda to: ROWS.write_csv(to / "rows.csv", include_bom=True), {}),
    "polars JSON lines": (lambda to: ROWS.write_ndjson(to / "rows.ndjson"), {}),
    "pandas Parquet of objects": (lambda to: PANDAS.to_parquet(to / "rows.parquet"), {}),
    "pandas Parquet of NumPy": (lambda to: NUMPY.to_parquet(to / "rows.parquet"), {}),
    "pandas CSV": (lambda to: PANDAS.to_csv(to / "rows.csv", index=False), {}),
    "pandas CSV with its index": (lambda to: NUMPY.to_csv(to / "rows.csv"), {}),
    "pandas CSV, German": (
        lambda to: NUMPY.to_csv(to / "rows.csv", sep=";", decimal=",", index=False),
        GERMAN,
    ),
    "pandas CSV, Latin-1": (
        lambda to: PANDAS.to_csv(to / "rows.csv", index=False, encoding="latin-1"),
        {"DATA__CSV__ENCODING": "latin-1"},
    ),
    "pandas CSV, UTF-16": (
        lambda to: PANDAS.to_csv(to / "rows.csv", index=False, encoding="utf-16"),
        {"DATA__CSV__ENCODING": "utf-16"},
    ),
    "pandas CSV, gzip": (lambda to: PANDAS.to_csv(to / "rows.csv.gz", index=False), {}),
    "pandas JSON lines": (
        lambda to: NUMPY.to_json(
            to / "rows.jsonl", orient="records", lines=True, date_format="iso"
        ),
        {},
    ),
    "R's write.csv": (
        lambda to: PANDAS.to_csv(
            to / "rows.csv", index=False, na_rep="NA", quoting=csv.QUOTE_NONNUMERIC
        ),
        {"DATA__CSV__NULL_VALUES": '["NA"]'},
    ),
    "csv": (with_csv, {}),
    "json": (with_json, {}),
    "pyarrow Parquet, dictionaries and a map": (with_map_and_dictionary, {}),
    "pyarrow Parquet, as older Sparks": (old_spark, {}),
    "pyarrow CSV": (
        lambda to: pyarrow_csv.write_csv(
            pyarrow.table(ARROW.set_column(4, "kind", ARROW["kind"].cast("string"))),
            to / "rows.csv",
        ),
        {},
    ),
    "gzip": (compressed("rows.csv.gz", gzip.compress), {}),
    "zstd": (compressed("rows.csv.zst", zstd), {}),
    "columns beyond the contract": (beyond, {}),
    "all columns as text": (
        lambda to: ROWS.cast(pl.String).write_parquet(to / "rows.parquet"),
        {},
    ),
    "DuckDB Parquet": (through_duckdb("rows.parquet"), {}),
    "DuckDB CSV": (through_duckdb("rows.csv"), {}),
    "DuckDB CSV, zstd": (through_duckdb("rows.csv.zst"), {}),
    "DuckDB JSON lines": (through_duckdb("rows.jsonl", "(FORMAT json)"), {}),
}


def read(folder: Path, root: Path, variables: dict[str, str]) -> tuple[pl.DataFrame, list[str]]:
    """Return the validated rows of the one file in a folder, and what was cast."""
    (file,) = folder.iterdir()
    with sandbox.enter(root, variables), pytest.MonkeyPatch.context() as patch:
        schema = Schema.model_validate({"CONTRACT": CONTRACT, "LABEL": "flag"})
        for module in (validate, reading):
            patch.setattr(module, "load_schema", lambda: schema)
        limits = load_settings().validation.model_copy(update={"min_rows": 1, "max_null_share": 1})
        rows, findings = validate.check_rows(
            validate.read_rows(str(file)), limits, partition=None, needs_label=True
        )
    assert findings.violations == []
    assert findings.failed_checks == {}
    return rows, list(findings.casts)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return where a writer puts its one file."""
    folder = tmp_path / "written"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("writer", WRITERS)
def test_rows_are_the_same_whoever_wrote_them(project: Path, folder: Path, writer: str) -> None:
    write, variables = WRITERS[writer]
    write(folder)
    rows, _ = read(folder, project, variables)
    assert_frame_equal(rows, ROWS)


def casts_of(frame: pl.DataFrame) -> tuple[str, ...]:
    """Return what is said to be cast, after a look that nothing failed."""
    conformed = conform(frame, dict(ROWS.schema))
    assert conformed.failures == []
    return conformed.casts


def test_what_was_cast_is_said_and_what_every_writer_does_is_not() -> None:
    assert casts_of(ROWS.cast({"count": pl.Int64, "amount": pl.Float64})) == ()
    habits = {"count": pl.Float64, "day": pl.Datetime("ns"), "flag": pl.Int8}
    assert casts_of(ROWS.cast(habits)) == (  # type: ignore[arg-type]
        "day Datetime(time_unit='ns', time_zone=None) → Date",
        "count Float64 → Int16",
        "flag Int8 → Boolean",
    )


LOSSY: dict[str, tuple[str, pl.Series]] = {
    "half a count": ("count", pl.Series([1.5, None, 2.0])),
    "a time for a day": ("day", ROWS["at"]),
    "a flag of two": ("flag", pl.Series([0, 1, 2])),
    "nanoseconds": ("at", pl.Series([1, 2, 3]).cast(pl.Datetime("ns"))),
    "a time without its zone": ("instant", ROWS["at"]),
    "seconds since 1970": ("at", pl.Series([1_767_614_400] * 3)),
    "numbers for words": ("word", pl.Series([1, 2, 3])),
    "text for numbers among typed columns": ("count", pl.Series(["1", "2", "3"])),
    "a day that means two": ("day", pl.Series(["05/01/2026"] * 3)),
    "bytes that are no text": ("word", pl.Series([b"\xff"] * 3)),
    "a third decimal": ("price", pl.Series([1.005, None, 1.0])),
}


@pytest.mark.parametrize("case", LOSSY)
def test_what_would_lose_a_value_stays_for_the_contract_to_name(case: str) -> None:
    column, values = LOSSY[case]
    changed = ROWS.with_columns(values.alias(column))
    assert_frame_equal(conform(changed, dict(ROWS.schema)).rows, changed)


TEXTS: dict[str, tuple[str, list[str | None], list[Any]]] = {
    "Int16": ("count", ["1", "1.0", "+3", "2.5", "70000", "x"], [1, 1, 3, None, None, None]),
    "Float32": ("amount", ["1.5", " 2 ", "1e3", "1,5", "-"], [1.5, 2, 1000, None, None]),
    "Boolean": ("flag", ["TRUE", "f", "0", "2", "no"], [True, False, False, None, None]),
    "Date": (
        "day",
        [
            *("2026-01-05T00:00:00.000Z", "2026-01-05 00:00:00", "05.01.2026", "2026/01/05"),
            *("2026-01-05 10:00", "2026-13-01"),
        ],
        [*[date(2026, 1, 5)] * 4, None, None],
    ),
    "Datetime": (
        "at",
        [
            *("2026-01-05 12:30+01", "2026-01-05T12:30:00.5", "05.01.2026 12:30"),
            *("2026-01-05 00:00:00.0000001", "noon"),
        ],
        [
            *(datetime(2026, 1, 5, 11, 30), datetime(2026, 1, 5, 12, 30, 0, 500_000)),
            *(datetime(2026, 1, 5, 12, 30), None, None),
        ],
    ),
    "Datetime with its zone": (
        "instant",
        ["2026-01-05 12:30:00+01:00", "2026-01-05 12:30:00"],
        [datetime(2026, 1, 5, 11, 30, tzinfo=UTC), None],
    ),
    "Decimal": ("price", ["1.50", "1.505"], [Decimal("1.50"), None]),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_text_that_says_nothing_is_a_failure_of_its_row(kind: str) -> None:
    column, texts, values = TEXTS[kind]
    conformed = conform(
        pl.DataFrame({column: [*texts, None, "NA", ""]}), {column: ROWS.schema[column]}
    )
    assert conformed.rows[column].to_list() == [*values, None, None, None]
    (failures,) = conformed.failures
    assert failures["check"].unique().to_list() == [f"fits {ROWS.schema[column]}"]
    assert failures["index"].to_list() == [i for i, value in enumerate(values) if value is None]


def test_the_casts_are_logged_once_for_all_partitions(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for file in (project / "data" / "sample").iterdir():
        pl.read_parquet(file).cast({"distance": pl.Float64}).write_parquet(file)
    caplog.set_level(logging.INFO)
    with sandbox.enter(project, sandbox.SMALL):
        run = start("training", sandbox.PARTITION)
        validate.validate(run, ingest(run))
    (said,) = (line for line in caplog.messages if "cast without a loss" in line)
    assert said.endswith("cast without a loss: distance Float64 → Int16")


@pytest.mark.parametrize(
    ("data", "suffix", "sentence"),
    [
        (b"a;b\n1;2\n", ".csv", "the CSV has one column, 'a;b': is separator = ';' missing"),
        (b"a\nZo\xeb\n", ".csv", "set the encoding in .data.csv. of config"),
        (b"a\n1\n", ".csv.gz", "the file is not compressed as .csv.gz"),
        (b'{"a": 1}\n{"a": ', ".jsonl", "Syntax at character 4"),
    ],
)
def test_a_file_in_another_dialect_is_refused_with_the_next_step(
    project: Path, data: bytes, suffix: str, sentence: str
) -> None:
    with pytest.raises(reading.broken_file(), match=sentence):
        reading.parse(data, suffix)


def test_compressed_json_lines_are_partitions_like_any_other(project: Path) -> None:
    sample = project / "data" / "sample"
    for file in sample.glob("*.parquet"):
        lines = pl.read_parquet(file).write_ndjson().encode()
        file.with_suffix(".jsonl.gz").write_bytes(gzip.compress(lines))
    found = []
    for name in ("{partition}.parquet", "{partition}.jsonl.gz"):
        with sandbox.enter(project, sandbox.SMALL | {"DATA__FILE": name}):
            run = start("training", sandbox.PARTITION)
            found.append(validate.validate(run, ingest(run)))
    assert found[0].fingerprint == found[1].fingerprint


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("FILE", "{partition}.xlsx", "data.file: .* must end in one of .parquet, .csv, .jsonl"),
        ("CSV__ENCODING", "nope", "data.csv.encoding: .* like latin-1"),
        ("CSV__SEPARATOR", ";;", "data.csv.separator: .* at most 1 character"),
    ],
)
def test_a_dialect_that_cannot_be_is_refused(
    project: Path, name: str, value: str, sentence: str
) -> None:
    variables = {f"DATA__{name}": value}
    with sandbox.enter(project, variables), pytest.raises(SettingsError, match=sentence):
        load_settings()
