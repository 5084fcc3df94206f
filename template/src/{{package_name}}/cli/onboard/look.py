"""What is in a table: read lazily, measured as a whole in one pass, and closely in a sample."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from ...core.errors import BadInput, SettingsError
from ...interface import is_unusable
from ...sources.database import locate
from .texts import (
    MOSTLY,
    NUMBER,
    as_number,
    as_time,
    form_of_times,
    is_ambiguous,
    is_slashed,
    shown,
)

# At most this many rows are looked at closely; a table that is not larger is taken whole.
SAMPLE_ROWS = 50_000
# Larger text files are read again for each question.
IN_MEMORY_BYTES = 500_000_000
# A database is not read further.
DATABASE_ROWS = 500_000
SUFFIXES = (".parquet", ".csv", ".tsv", ".txt", ".jsonl", ".ndjson")
# What programs write where there is no value.
NO_VALUE = ["", "NA", "N/A", "#N/A", "NaN", "nan", "NULL", "null"]
# How polars says that a file is not what it seems to be.
BROKEN = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError)


@dataclass(frozen=True)
class Source:
    """Where the rows are.

    Attributes:
        kind: As in `[data]`: files, table or sql.
        address: As it was given.
        paths: Its files; none for a database.
        query: What a database is asked.
    """

    kind: str
    address: str
    paths: tuple[str, ...] = ()
    query: str = ""

    @property
    def shown(self) -> str:
        """The address without a password."""
        return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", self.address)

    @property
    def names(self) -> dict[str, str]:
        """The files of a pattern, by what stands for `{partition}` in their names."""
        before, after = (len(part) for part in self.address.split("{partition}", 1))
        return {path[before : len(path) - after]: path for path in self.paths}


@dataclass(frozen=True)
class Column:
    """A column as a whole.

    Attributes:
        dtype: As the contract will have it.
        distinct: Different values, without null; an estimate where the table is large.
        low: The smallest number or time, None where there is none.
        high: The largest.
    """

    name: str
    dtype: pl.DataType
    nulls: int
    distinct: int
    low: Any = None
    high: Any = None


@dataclass(frozen=True)
class Table:
    """A table that has been looked at.

    Attributes:
        frame: All of it, not yet read, with the types of `columns`.
        sample: Rows taken evenly from it, or all.
        dialect: Of a CSV, as in `[data.csv]`.
        notes: What was done to be able to use it, in sentences.
    """

    source: Source
    frame: pl.LazyFrame
    rows: int
    columns: dict[str, Column]
    sample: pl.DataFrame
    dialect: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def is_small(self) -> bool:
        """Whether the sample is the whole table."""
        return self.rows == self.sample.height


def look(address: str, table: str = "", query: str = "", ignore: Sequence[str] = ()) -> Table:
    """Measure a table.

    Args:
        address: A file, a folder, a pattern with `{partition}`, or an SQLAlchemy address.
        table: A table of the database.
        query: A query to the database instead.
        ignore: Columns to leave out.

    Raises:
        BadInput: There is no such table, it has no rows, or a column cannot be used.
    """
    source = find(address, table, query)
    try:
        try:
            return _measure(source, ignore, rows_for_types=10_000)
        except pl.exceptions.ComputeError:
            # Values further down have another type than the first rows.
            return _measure(source, ignore, rows_for_types=None)
    except BadInput:
        raise
    except BROKEN as error:
        line = (f"{error}".splitlines() or [type(error).__name__])[0]
        raise BadInput(
            f"'{address}' cannot be read: {line}. Open it in the program that wrote it, and save "
            "it again as Parquet or UTF-8 CSV"
        ) from error


def find(address: str, table: str = "", query: str = "") -> Source:
    """Return where the rows are; raises like `look`."""
    if table or query:
        return Source("sql", _absolute(address), query=query or f"SELECT * FROM {table}")
    if "://" in address and not _suffix(address):
        raise BadInput(f"'{address}' is a database: add --table NAME or --query 'SELECT …'")
    if "{partition}" in address:
        paths = sorted(glob.glob(address.replace("{partition}", "*")))
        if not paths:
            raise BadInput(f"no file matches '{address}', where {{partition}} stands for any name")
        return Source("files", address, tuple(paths))
    path = Path(address)
    if path.is_dir():
        found = sorted(f"{file}" for file in path.rglob("*") if _suffix(file.name))
        kinds = sorted({_suffix(name) for name in found})
        if len(kinds) != 1:
            what = f"tables of several kinds ({', '.join(kinds)})" if kinds else "no table"
            raise BadInput(f"folder '{address}' holds {what}: name one file, or a pattern")
        return Source("table", address, tuple(found))
    if "://" not in address and not path.is_file():
        raise BadInput(f"'{address}' is not a file, folder, pattern with {{partition}}, or address")
    if address.lower().endswith((".db", ".sqlite", ".sqlite3", ".duckdb")):
        kind = "duckdb" if address.lower().endswith(".duckdb") else "sqlite"
        raise BadInput(f"'{address}' is a database: name it as {kind}:///{address} --table NAME")
    if not _suffix(address):
        ends = ", ".join(SUFFIXES)
        raise BadInput(f"'{address}' ends in none of {ends} (.gz and .zst may follow): convert it")
    return Source("table", address, (address,))


def _absolute(address: str) -> str:
    """Return the address of a database with its file, if it is one, from the root of the disk."""
    try:
        return locate(address, Path.cwd()).render_as_string(hide_password=False)
    except SettingsError as error:
        raise BadInput(f"{error}") from error


def _suffix(name: str) -> str:
    """Return how a table's file ends, without its compression; empty for any other file."""
    bare = re.sub(r"\.(gz|zst)$", "", name.lower())
    return next((suffix for suffix in SUFFIXES if bare.endswith(suffix)), "")


def _open(
    source: Source, dialect: dict[str, Any], notes: list[str], rows_for_types: int | None
) -> pl.LazyFrame:
    if source.kind == "sql":
        return _read_database(source, notes)
    suffix, paths = _suffix(source.paths[0]), list(source.paths)
    if suffix == ".parquet":
        return _scan_all(paths, notes)
    if suffix in (".jsonl", ".ndjson"):
        return pl.scan_ndjson(paths, infer_schema_length=rows_for_types)
    dialect |= _dialect(paths[0])
    options = {name: value for name, value in dialect.items() if name != "encoding"}
    # polars takes 03/04/2026 for a day in April, wherever that was written.
    options |= {"schema_overrides": dict.fromkeys(_slashed(paths[0], options), pl.String)}
    options |= {"try_parse_dates": True, "infer_schema_length": rows_for_types}
    if dialect["separator"] != ",":
        comma = " and has decimal commas" if dialect["decimal_comma"] else ""
        notes.append(f"the file separates by {dialect['separator']!r}{comma}")
    if dialect["encoding"] == "utf8":
        return pl.scan_csv(paths, **options)
    notes.append(f"the file is not UTF-8; it was read as {dialect['encoding']}")
    return pl.concat([_decoded(path, dialect["encoding"], options).lazy() for path in paths])


def _scan_all(paths: list[str], notes: list[str]) -> pl.LazyFrame:
    """Return the rows of Parquet files; a column that some lack is null there."""
    names = [set(pl.read_parquet_schema(path)) for path in paths]
    every = set[str]().union(*names)
    lacking = [(path, every - seen) for path, seen in zip(paths, names, strict=True)]
    lacking = [(path, missing) for path, missing in lacking if missing]
    if not lacking:
        return pl.scan_parquet(paths)
    path, missing = lacking[0]
    notes.append(
        f"{len(lacking)} of {len(paths)} files lack a column, which is null there: "
        f"'{path}' has no {', '.join(sorted(missing))}"
    )
    return pl.concat([pl.scan_parquet(path) for path in paths], how="diagonal_relaxed")


def _decoded(path: str, encoding: str, options: dict[str, Any]) -> pl.DataFrame:
    import fsspec

    with fsspec.open(path, "rt", encoding=encoding, newline="", compression="infer") as file:
        return pl.read_csv(file.read().encode(), **options)


def _slashed(path: str, options: Mapping[str, Any]) -> list[str]:
    """Return the columns of a CSV that hold days like 03/04/2026."""
    plain = {**options, "infer_schema": False, "encoding": "utf8-lossy", "decimal_comma": False}
    first = pl.scan_csv(path, **plain).head(100).collect()
    form = r"^\d{1,2}/\d{1,2}/\d{4}"
    # Polars takes some names for patterns: only the values are used.
    texts = [(one.name, one.alias("text")) for one in first if one.dtype == pl.String]
    return [name for name, text in texts if text.str.contains(form).any()]


def _dialect(path: str) -> dict[str, Any]:
    """Return how a CSV is written, from its first lines."""
    # Whole lines: nothing is separated by this character.
    peek: dict[str, Any] = {"separator": "\x1f", "quote_char": None, "has_header": False}
    peek |= {"new_columns": ["line"], "encoding": "utf8-lossy", "n_rows": 200}
    lines = pl.scan_csv(path, **peek).collect()["line"].drop_nulls().to_list()
    if not lines:
        raise BadInput(f"'{path}' has no rows: name a file that has some")
    separator = max(",;\t|", key=lines[0].count)
    fields = [field.strip('" ') for line in lines[1:] for field in line.split(separator)]
    comma = separator != "," and any(
        "," in field and re.fullmatch(NUMBER, field) for field in fields
    )
    return {
        "separator": separator,
        "decimal_comma": comma,
        "encoding": "cp1252" if any("\ufffd" in line for line in lines) else "utf8",
        "null_values": NO_VALUE,
    }


def _read_database(source: Source, notes: list[str]) -> pl.LazyFrame:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    # A query of one partition is asked for all of them.
    bounds = {"start": datetime.min, "end": datetime.max}
    bound = {name: value for name, value in bounds.items() if f":{name}" in source.query}
    try:
        with create_engine(source.address).connect() as connection:
            batches = pl.read_database(
                source.query,
                connection,
                iter_batches=True,
                batch_size=50_000,
                execute_options={"parameters": bound},
            )
            read: list[pl.DataFrame] = []
            for batch in batches:
                read.append(batch)
                if sum(one.height for one in read) >= DATABASE_ROWS:
                    notes.append(f"only the first {DATABASE_ROWS:,} rows of the query were read")
                    break
    except (SQLAlchemyError, ModuleNotFoundError) as error:
        line = f"{error}".splitlines()[0]
        raise BadInput(
            f"'{source.shown}' does not answer '{source.query}': {line}{_tables(source.address)}"
        ) from error
    return pl.concat(read, how="vertical_relaxed").lazy() if read else pl.LazyFrame()


def _tables(address: str) -> str:
    """Name the tables of a database, where it can be asked."""
    from sqlalchemy import create_engine, inspect
    from sqlalchemy.exc import SQLAlchemyError

    try:
        names = inspect(create_engine(address)).get_table_names()
    except (SQLAlchemyError, ModuleNotFoundError):
        return ""
    return f". There are: {', '.join(names) or 'no tables'}"


def _measure(source: Source, ignore: Sequence[str], rows_for_types: int | None) -> Table:
    notes: list[str] = []
    dialect: dict[str, Any] = {}
    opened = _open(source, dialect, notes, rows_for_types)
    frame = _typed(opened, dialect, ignore, notes)
    if dialect and sum(Path(path).stat().st_size for path in source.paths) < IN_MEMORY_BYTES:
        # Text is slow to read: once is enough.
        frame = frame.collect(engine="streaming").lazy()
    types = frame.collect_schema()
    counted = [pl.len().alias("rows"), *(one for name in types for one in _counts(name, types))]
    found = frame.select(counted).collect(engine="streaming").row(0, named=True)
    rows = found["rows"]
    if not rows:
        raise BadInput(f"'{source.address}' has no rows: name a table that has some")
    every = -(-rows // SAMPLE_ROWS)
    spread = frame.with_row_index("\x1f").filter(pl.col("\x1f") % every == 0).drop("\x1f")
    sample = (frame if every == 1 else spread).collect(engine="streaming")
    columns = {}
    for name, dtype in types.items():
        nulls, distinct, low, high = (found.get(f"{key} {name}") for key in ("n", "d", "<", ">"))
        if every == 1:
            distinct = sample[name].drop_nulls().n_unique()
        columns[name] = Column(name, dtype, nulls or 0, distinct or 0, low, high)
        _refuse_mixed(columns[name], sample[name])
    return Table(source, frame, rows, columns, sample, dialect, tuple(notes))


def read_file(table: Table, path: str) -> pl.DataFrame:
    """Return the rows of one of the table's files, in the table's types."""
    frame = _open(replace(table.source, paths=(path,)), {}, [], None)
    there = frame.collect_schema()
    lacking = [pl.lit(None).alias(name) for name in table.columns if name not in there]
    frame = frame.with_columns(lacking).select(list(table.columns))
    types = {name: column.dtype for name, column in table.columns.items()}
    typed = _typed(frame, dict(table.dialect), (), [], types)
    return typed.collect().cast(types)  # type: ignore[arg-type]


def _counts(name: str, types: pl.Schema) -> list[pl.Expr]:
    column = pl.col(name)
    counts = [column.null_count().alias(f"n {name}")]
    counts.append(column.drop_nulls().approx_n_unique().alias(f"d {name}"))
    if types[name].is_numeric() or types[name].is_temporal():
        counts += [column.min().alias(f"< {name}"), column.max().alias(f"> {name}")]
    return counts


def _typed(
    frame: pl.LazyFrame,
    dialect: dict[str, Any],
    ignore: Sequence[str],
    notes: list[str],
    wanted: Mapping[str, pl.DataType] | None = None,
) -> pl.LazyFrame:
    """Return the columns that can be used, in the few types that a contract needs.

    Args:
        frame: Rows as they were read.
        dialect: Of a CSV; the form of its days is added.
        ignore: Columns to leave out.
        notes: What is done is added.
        wanted: The types, where they are known.
    """
    types = frame.collect_schema()
    if unknown := [name for name in ignore if name not in types]:
        raise BadInput(f"--ignore {unknown[0]}: no such column; there are: {', '.join(types)}")
    first = frame.head(1000).collect()
    kept = []
    for name, dtype in types.items():
        if name in ignore:
            continue
        if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
            raise BadInput(
                f"column '{name}' holds {dtype}, of which no feature can be made: flatten it, or "
                f"leave it out with --ignore {name!r}"
            )
        why = ""
        if not name:
            why = "has no name"
        elif is_unusable(name):
            why = "has a name that stands for others"
        elif dtype in (pl.Null, pl.Time, pl.Duration):
            why = f"holds {dtype} only"
        if why:
            notes.append(f"column '{name}' {why} and is left out")
            continue
        if "_duplicated_" in name:
            notes.append(f"a second column of the same name is now called '{name}'")
        known = wanted[name] if wanted else None
        kept.append(_as_contract_has_it(first[name], dialect, notes, known))
    return frame.select(kept)


def _as_contract_has_it(
    first: pl.Series, dialect: dict[str, Any], notes: list[str], wanted: pl.DataType | None
) -> pl.Expr:
    """Return a column in a type that a contract needs, which may be known: `wanted`."""
    name, dtype = first.name, first.dtype
    column = pl.col(name)
    if dtype.is_integer():
        return column.cast(pl.Int64)
    if dtype.is_numeric():
        return column.cast(pl.Float64).fill_nan(None)
    if dtype in (pl.Categorical, pl.Enum):
        return column.cast(pl.String)
    texts = first.drop_nulls()
    if dtype != pl.String or not len(texts) or wanted == pl.String:
        return column
    number = as_number(name, texts) if dialect.get("decimal_comma") else None
    if number is not None:
        notes.append(f"column '{name}' holds numbers like '{texts[0]}'")
        return number
    if wanted is not None and wanted.is_temporal() and "date_format" in dialect:
        return as_time(name, dialect["date_format"])
    form, no_time = form_of_times(texts)
    if wanted is None and len(no_time) > (1 - MOSTLY) * len(texts):
        return column
    if wanted is None and is_ambiguous(texts, form):
        notes.append(
            f"column '{name}' holds text like '{texts[0]}', of which nobody knows whether the day "
            "or the month comes first, and stays text: write it like 2026-11-27"
        )
        return column
    but = f", but for {shown(no_time.unique(maintain_order=True))}" if len(no_time) else ""
    like = next((text for text in texts if text not in no_time), "")
    notes.append(f"column '{name}' holds text like '{like}', taken as a time{but}")
    if is_slashed(form) and dialect:
        dialect["date_format"] = form
    return as_time(name, form)


def _refuse_mixed(column: Column, sample: pl.Series) -> None:
    """Refuse text most of which is numbers; polars reads a column of both as text."""
    texts = sample.drop_nulls() if column.dtype == pl.String else sample.clear()
    if not len(texts):
        return
    numbers = texts.str.strip_chars().cast(pl.Float64, strict=False)
    words = texts.filter(numbers.is_null())
    if len(texts) / 2 < len(texts) - len(words) < len(texts):
        raise BadInput(
            f"column '{column.name}' mixes numbers with text like '{words[0]}': clean it, or leave "
            f"it out with --ignore {column.name!r}"
        )
