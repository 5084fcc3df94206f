"""From a file to rows: Parquet, CSV or JSON lines, each also compressed as .gz or .zst."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from upath import UPath

from ..core import storage
from ..core.errors import BadInput
from ..core.outcomes import Violation
from ..core.settings import SUFFIXES, load_settings
from ..interface import load_schema

if TYPE_CHECKING:
    import polars as pl
    from polars.exceptions import PanicException, PolarsError

    Broken = tuple[type[PolarsError], type[PanicException], type[OverflowError], type[ValueError]]

_SEPARATORS = ",;\t|"
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_CHUNK = 16_000_000
_THOUSANDS = r"^\s*[+-]?\d{1,3}(\.\d{3})+(,\d+)?\s*$"


class TooLarge(ValueError):
    """More than `[validation]` lets into memory."""


def limit_rows(rows: int) -> None:
    """Refuse more rows than `max_rows`; raises TooLarge."""
    most = load_settings().validation.max_rows
    if rows > most:
        raise TooLarge(f"{rows:,} rows, at most {most:,} may be (max_rows in [validation])")


def limit_bytes(size: float, name: str = "max_megabytes") -> None:
    """Refuse what takes more bytes than a limit of `[validation]`; raises TooLarge."""
    most = float(getattr(load_settings().validation, name))
    if size > most * 1e6:
        what = "a line of " if name == "max_line_megabytes" else ""
        raise TooLarge(
            f"{what}{size / 1e6:,.0f} MB or more, at most {most:,g} may be ({name} in [validation])"
        )


def limit_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """Return rows if neither their number nor their size as written exceeds the limits.

    Repeated values take no memory until then. Raises TooLarge.
    """
    limit_rows(frame.height)
    limit_bytes(frame.estimated_size())
    return frame


def violation_of(error: BaseException) -> Violation:
    """Return what reading a file raised as a violation of the contract."""
    check = "too_large" if isinstance(error, TooLarge) else "unreadable_file"
    return Violation(check=check, detail=(str(error).splitlines() or [type(error).__name__])[0])


def suffix_of(name: str) -> str:
    """Return the end of a file's name that says how to read it, like `.csv.gz`.

    Raises:
        BadInput: No format is known for it.
    """
    for suffix in SUFFIXES:
        if name.endswith(suffix):
            return suffix
    raise BadInput(f"{name} ends in none of {', '.join(SUFFIXES)}")


def read_file(path: UPath) -> pl.DataFrame:
    """Read all rows of a file, whose name says the format; like `parse`.

    Raises:
        BadInput: The file's name has an ending that is not known.
    """
    import polars as pl

    suffix = suffix_of(path.name)
    limit_bytes(path.stat().st_size or 0)
    if suffix == ".parquet" and storage.is_local(path):
        _check_footer(str(path))
        return limit_frame(pl.read_parquet(str(path)))
    return parse(path.read_bytes(), suffix)


def parse(data: bytes, suffix: str, *, guess: bool = False) -> pl.DataFrame:
    """Read the rows of a file's content.

    Args:
        data: The content.
        suffix: Says the format; see `suffix_of`.
        guess: Guess the types of a CSV. Else all its columns are text, for `conform` to read,
            with a decimal point for the comma in the contract's numbers.

    Raises:
        polars.exceptions.PolarsError, ValueError: The file is broken; see `broken_file`.
    """
    import polars as pl

    data = _unpacked(data, suffix)
    if suffix.startswith(".parquet"):
        _check_footer(io.BytesIO(data))
        return limit_frame(pl.read_parquet(data))
    _check_lines(data)
    if suffix.startswith(".csv"):
        return limit_frame(_parse_csv(data, guess))
    return limit_frame(pl.read_ndjson(data, infer_schema_length=None))


def count_rows(path: UPath) -> int:
    """Return how many rows a file has; raises like `read_file`."""
    if suffix_of(path.name) != ".parquet":
        return read_file(path).height
    place = str(path) if storage.is_local(path) else io.BytesIO(path.read_bytes())
    return _check_footer(place)


def is_cut(data: bytes, suffix: str) -> bool:
    """Return whether a file's content is surely truncated; a CSV may be cut at a line's end."""
    try:
        data = _unpacked(data, suffix)
    except TooLarge:
        return False
    except ValueError:
        return True
    if suffix.startswith(".parquet"):
        return not data.endswith(b"PAR1")
    return not data or (not suffix.startswith(".csv") and not data[-99:].rstrip().endswith(b"}"))


def broken_file() -> Broken:
    """Return what polars raises on a file that it cannot parse, and Python on such values.

    A panic is not an `Exception`.
    """
    from polars.exceptions import PanicException, PolarsError

    return PolarsError, PanicException, OverflowError, ValueError


def _unpacked(data: bytes, suffix: str) -> bytes:
    codec = {".gz": "gzip", ".zst": "zstd"}.get(suffix[suffix.rindex(".") :])
    # Some programs compress a CSV and do not say so in the name.
    if codec is None and suffix == ".csv":
        codec = next((name for start, name in _COMPRESSED.items() if data.startswith(start)), None)
    if codec is None:
        return data
    import pyarrow as pa

    unpacked = io.BytesIO()
    try:
        with pa.input_stream(pa.py_buffer(data), compression=codec) as stream:
            while chunk := stream.read(_CHUNK):
                unpacked.write(chunk)
                limit_bytes(unpacked.tell())
    except OSError as error:
        raise ValueError(f"the file is not compressed as {suffix}: {error}") from error
    return unpacked.getvalue()


def _check_footer(place: str | io.BytesIO) -> int:
    """Refuse a Parquet file by its metadata, before its rows are read; returns their number.

    Moves the position of a stream.
    """
    import pyarrow.parquet as pq

    try:
        footer = pq.read_metadata(place)
    except OSError as error:
        raise ValueError(f"{error}") from error
    limit_rows(footer.num_rows)
    groups = map(footer.row_group, range(footer.num_row_groups))
    limit_bytes(sum(group.total_byte_size for group in groups))
    return int(footer.num_rows)


def _check_lines(data: bytes) -> None:
    """Refuse text with a line that is longer than allowed."""
    most = int(load_settings().validation.max_line_megabytes * 1e6)
    start = 0
    while len(data) - start > most:
        end = data.rfind(b"\n", start, start + most + 1)
        if end < 0:
            limit_bytes(most + 1, "max_line_megabytes")
        start = end + 1


def _parse_csv(data: bytes, guess: bool) -> pl.DataFrame:
    import polars as pl

    csv = load_settings().data.csv
    frame = pl.read_csv(
        io.BytesIO(_as_utf8(data, csv.encoding)),
        separator=csv.separator,
        null_values=csv.null_values,
        infer_schema=guess,
        infer_schema_length=None,
        try_parse_dates=guess,
        decimal_comma=guess and csv.decimal_comma,
    )
    others = [one for one in _SEPARATORS if one in frame.columns[0]] if frame.width == 1 else []
    if others:
        raise ValueError(
            f"the CSV has one column, '{frame.columns[0]:.60}': is separator = {others[0]!r} "
            "missing in [data.csv] of config/pipeline.toml?"
        )
    if csv.date_format and not guess:
        frame = _with_iso_times(frame, csv.date_format)
    if csv.decimal_comma and not guess:
        types = load_schema().types
        numbers = [name for name in frame.columns if name in types and types[name].is_numeric()]
        text = pl.col(numbers)
        # 1.234,56 has points between thousands.
        whole = text.str.replace_all(".", "", literal=True)
        text = pl.when(text.str.contains(_THOUSANDS)).then(whole).otherwise(text)
        frame = frame.with_columns(text.str.replace(",", ".", literal=True))
    return frame


def _with_iso_times(frame: pl.DataFrame, form: str) -> pl.DataFrame:
    """Return texts in that form as ISO 8601 in the contract's columns of dates and times."""
    import polars as pl

    types = load_schema().types
    times = [name for name in frame.columns if types.get(name) in (pl.Date, pl.Datetime)]
    return frame.with_columns(
        pl.coalesce(
            pl.col(name).str.strip_chars().str.to_datetime(form, strict=False).dt.to_string("iso"),
            pl.col(name),
        )
        for name in times
    )


def _as_utf8(data: bytes, encoding: str) -> bytes:
    try:
        return data.decode(encoding).encode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{error}: set the encoding in [data.csv] of config/pipeline.toml, like latin-1"
        ) from None
