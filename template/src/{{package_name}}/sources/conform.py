"""Undoes the changes of type that other writers make without losing a value.

Numbers of another width, whole floats for integers, midnights for dates, categories for text and
the like are cast to the contract's types. Whatever would lose a value is left as it is, for the
contract to report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import polars as pl

# Dates that spreadsheets write and that are unambiguous: 27.11.2026 and 2026/11/27.
_OTHER_DAYS = {
    r"^\s*(\d\d)\.(\d\d)\.(\d{4})": "${3}-${2}-${1}",
    r"^\s*(\d{4})/(\d\d)/(\d\d)": "${1}-${2}-${3}",
}
# A moment as text: ISO 8601 in the forms that databases and other tools write.
_MOMENT = (
    r"^\s*(?<day>\d{4}-\d\d-\d\d)"
    r"(?:[T ](?<minute>\d\d:\d\d)(?<second>:\d\d)?(?<part>\.\d+)?"
    r"\s*(?<zone>Z|[+-]\d\d(?::?\d\d)?)?)?\s*$"
)
_BOOLEANS = {"true": True, "t": True, "1": True, "1.0": True}
_BOOLEANS |= {"false": False, "f": False, "0": False, "0.0": False}
# Never a number, date or boolean; in a column of text they may be words.
_NULLS = ["", "NA", "NULL", "null", "None", r"\N"]
# Beyond it, a float may differ from the whole number that was written.
_EXACT = 2.0**53
_FINEST = pl.Decimal(38, 15)
_DIGITS = {"ms": 3, "us": 6, "ns": 9}


@dataclass(frozen=True)
class Conformed:
    """Rows in the contract's types.

    Attributes:
        rows: The frame; a value that does not fit its type is null.
        casts: What was cast to another kind of type, like `distance Float64 → Int16`.
        failures: What did not fit, in pandera's form: column, check and the row's index.
    """

    rows: pl.DataFrame
    casts: tuple[str, ...]
    failures: list[pl.DataFrame]


def conform(frame: pl.DataFrame, types: Mapping[str, pl.DataType]) -> Conformed:
    """Cast columns to the contract's types where no value is lost.

    A value that does not fit, like a number too large for the contract's width, is a failure of
    its row. If all columns are text, the writer knew no types, as in a CSV, and numbers are parsed
    from it; elsewhere a number that comes as text is left for the contract to refuse. Decimals,
    dates, times and booleans are read from text everywhere, since JSON has no other form for most.

    Args:
        frame: Raw rows, with all columns of `types` and more.
        types: The contract's type of each column.
    """
    untyped = all(dtype in (pl.String, pl.Null) for dtype in frame.dtypes)
    casts, failures = [], []
    for name, wanted in types.items():
        values = frame[name]
        if values.dtype == wanted:
            continue
        is_text = values.dtype == pl.String and _kind(wanted) != "text"
        if is_text and not untyped and wanted.is_numeric() and not wanted.is_decimal():
            continue
        pair = _from_text(values, wanted) if is_text else _from_typed(values, wanted)
        if pair is None:
            continue
        values, fitted = pair
        frame = frame.with_columns(fitted.alias(name))
        if not untyped and values.dtype != pl.Null and _family(values.dtype) != _family(wanted):
            casts.append(f"{name} {values.dtype} → {fitted.dtype}")
        index = (values.is_not_null() & fitted.is_null()).arg_true().cast(pl.Int32)
        if len(index):
            check = f"fits {fitted.dtype}"
            failures.append(pl.DataFrame({"column": name, "check": check, "index": index}))
    return Conformed(frame, tuple(casts), failures)


def _from_typed(values: pl.Series, wanted: pl.DataType) -> tuple[pl.Series, pl.Series] | None:
    """Return values, and the same cast to another type; None if one would be lost."""
    had, kinds = values.dtype, {_kind(values.dtype), _kind(wanted)}
    if had == pl.Null:
        return values, values.cast(wanted)
    if "other" in kinds or (len(kinds) > 1 and kinds != {"number", "boolean"}):
        return None
    if had.is_float() and not wanted.is_float():
        # pandas has no integer column with gaps: it writes whole floats and NaN.
        values = values.fill_nan(None)
    plain = values
    if isinstance(had, pl.Datetime) and had.time_zone:
        if wanted == pl.Date:
            plain = values.dt.replace_time_zone(None)
        elif getattr(wanted, "time_zone", None) is None:
            plain = values.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    elif isinstance(wanted, pl.Datetime) and wanted.time_zone:
        # It is unknown which zone was meant.
        return None
    try:
        fitted = plain.cast(wanted, strict=False)
    except pl.exceptions.ComputeError:
        # Bytes that are not text.
        return None
    if wanted.is_float() and had.is_numeric():
        return values, fitted
    fits = fitted.is_not_null()
    same = fitted.filter(fits).cast(plain.dtype, strict=False).eq_missing(plain.filter(fits))
    return (values, fitted) if same.all() else None


def _from_text(values: pl.Series, wanted: pl.DataType) -> tuple[pl.Series, pl.Series] | None:
    """Return text and its parsed values; None if none of it can be parsed."""
    text = values.str.strip_chars()
    text = text.set(text.is_in(_NULLS), None)
    if wanted.is_integer():
        fitted = _integers(text, wanted)
    elif wanted.is_decimal():
        exact, fitted = (text.cast(one, strict=False) for one in (_FINEST, wanted))
        fitted = fitted.set(fitted.cast(_FINEST) != exact, None)
    elif wanted.is_numeric():
        fitted = text.cast(pl.Float64, strict=False)
    elif wanted == pl.Boolean:
        fitted = text.str.to_lowercase().replace_strict(
            _BOOLEANS, default=None, return_dtype=pl.Boolean
        )
    elif wanted in (pl.Date, pl.Datetime):
        fitted = moments(text, wanted)
    elif wanted == pl.Time:
        fitted = text.str.to_time("%H:%M:%S%.f", strict=False)
    else:
        return None
    fitted = fitted.cast(wanted, strict=False)
    nothing = fitted.null_count() == len(fitted) > text.null_count()
    return None if nothing else (text, fitted)


def _integers(text: pl.Series, wanted: pl.DataType) -> pl.Series:
    """Return the whole numbers in text; `1.0` is one, as pandas writes it beside gaps."""
    whole = text.cast(pl.UInt64 if wanted == pl.UInt64 else pl.Int64, strict=False)
    floats = text.cast(pl.Float64, strict=False)
    floats = floats.set((floats.abs() > _EXACT) | (floats % 1 != 0), None)
    return whole.fill_null(floats.cast(whole.dtype, strict=False))


def moments(text: pl.Series, wanted: pl.DataType) -> pl.Series:
    """Return the dates or times in text.

    A date with a time of day does not fit a date, nor does a time without a zone fit one with a
    zone, or a time finer than its type. A date is read as written, whatever its zone.
    """
    for pattern, iso in _OTHER_DAYS.items():
        text = text.str.replace(pattern, iso)
    parts = text.str.extract_groups(_MOMENT).struct.unnest()
    zone = pl.lit("Z") if wanted == pl.Date else pl.col("zone").fill_null("Z")
    clock = pl.concat_str(
        pl.col("day"),
        pl.lit("T"),
        pl.col("minute").fill_null("00:00"),
        pl.col("second").fill_null(":00"),
        pl.col("part").fill_null(""),
        zone,
    )
    unit: Literal["ns", "us", "ms"] = getattr(wanted, "time_unit", None) or "us"
    form = "%Y-%m-%dT%H:%M:%S%.f%#z"
    moment = clock.str.to_datetime(form, time_unit=unit, time_zone="UTC", strict=False)
    too_fine = pl.col("part").str.contains(rf"^\.\d{{{_DIGITS[unit]}}}0*[1-9]").fill_null(False)
    moments = parts.select(pl.when(~too_fine).then(moment)).to_series()
    if getattr(wanted, "time_zone", None):
        return moments.set(parts["zone"].is_null(), None).cast(wanted)
    moments = moments.dt.replace_time_zone(None)
    if wanted == pl.Date:
        moments = moments.set(moments.dt.truncate("1d") != moments, None)
    return moments.cast(wanted)


def _kind(dtype: pl.DataType) -> str:
    """Return what a type holds: types of one kind may be cast to each other."""
    if dtype.is_numeric():
        return "number"
    if dtype == pl.Boolean:
        return "boolean"
    if dtype in (pl.Date, pl.Datetime):
        return "date"
    return "text" if dtype in (pl.String, pl.Categorical, pl.Enum, pl.Binary) else "other"


def _family(dtype: pl.DataType) -> str:
    """Return the family of a type: writers often swap its types, so such casts go unreported."""
    if dtype.is_integer():
        return "integer"
    return "float" if dtype.is_float() else f"{dtype.base_type()}"
