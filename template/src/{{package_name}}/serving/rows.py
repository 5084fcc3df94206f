"""From the JSON of a request to rows that keep the data contract, or to what is wrong with them."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
import polars as pl
from pydantic_core import from_json

from ..core.errors import BadInput
from ..core.settings import load_settings
from ..domain.schema import LABEL
from ..stages.validate import CONTRACT, check_rows
from .gate import gate

MAX_PROBLEMS = 100
_LONGEST_TEXT = 200
_INDEX = "__index__"
_LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
# Shares of nulls and of invalid rows are limits of a day's data; here each row stands for itself.
_NO_LIMITS = {"min_rows": 0, "max_invalid_share": 1.0, "max_null_share": 1.0}
_COLUMN_PROBLEMS = ("missing_column", "wrong_type")


class BadRequest(Exception):
    """The request cannot be understood, or is too large; `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Problem:
    """What is wrong with a field of a row.

    Attributes:
        row: Index in `rows`, from 0; None when all of them are meant.
        field: The field; None when the row as a whole is meant.
        problem: The broken rule.
        value: What was sent.
    """

    row: int | None
    field: str | None
    problem: str
    value: Any = None


class RowsRejected(Exception):
    """Rows break the data contract; nothing was predicted."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(f"{len(problems)} problems")
        self.problems = sorted(problems, key=lambda found: -1 if found.row is None else found.row)

    @property
    def summary(self) -> str:
        """Return one sentence for people."""
        count, rows = len(self.problems), len({found.row for found in self.problems})
        text = f"{_plural(count, 'problem')} in {_plural(rows, 'row')}"
        return f"{text}; the first {MAX_PROBLEMS} are listed" if count > MAX_PROBLEMS else text


@dataclass(frozen=True)
class Field:
    """A column of the contract as a field of a row.

    Attributes:
        plain: JSON's types of values that `read` takes.
        read: Returns all values as a column; raises when one of them is none.
        convert: Returns a value as the column keeps it; raises ValueError for one that is none.
        expected: What a value must be, in words.
    """

    name: str
    dtype: pl.DataType
    nullable: bool
    plain: frozenset[type]
    read: Callable[[str, list[Any]], pl.Series]
    convert: Callable[[Any], Any]
    expected: str


def read_rows(body: bytes, max_rows: int) -> pl.DataFrame:
    """Return the rows of a request's body, all of them valid, with the contract's types.

    Raises:
        BadRequest: The body is not JSON, not of the form `{"rows": [{…}]}`, or has too many rows.
        RowsRejected: Rows break the contract.
    """
    try:
        content = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise BadRequest(400, f"the body is not JSON: {_shorten(str(error))}") from None
    rows = content.get("rows") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows:
        raise BadRequest(422, 'the body must have one row or more in a list: {"rows": [{…}]}')
    if len(rows) > max_rows:
        raise BadRequest(413, f"{len(rows):,} rows are too many, at most {max_rows:,} may be sent")
    strangers = [
        Problem(index, None, "must be an object", _shown(row))
        for index, row in enumerate(rows)
        if not isinstance(row, dict)
    ]
    if strangers:
        raise RowsRejected(strangers)
    return check(rows)


def check(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Return rows as a frame of the contract's columns; the label is null.

    Raises:
        RowsRejected: Names row and field of every problem.
    """
    problems: list[Problem] = []
    columns = [_column(field, rows, problems) for field in FIELDS]
    if LABEL in CONTRACT.columns:
        columns.insert(
            _LABEL_AT, pl.Series(LABEL, [None], _LABEL_TYPE).new_from_index(0, len(rows))
        )
    frame = pl.DataFrame(columns)
    if not problems and _GATE is not None and _GATE(frame):
        return frame
    valid, broken = _check_contract(frame)
    known = {(found.row, found.field) for found in problems}
    problems += [found for found in broken if (found.row, found.field) not in known]
    if problems:
        raise RowsRejected(problems)
    return valid


def _check_contract(frame: pl.DataFrame) -> tuple[pl.DataFrame, list[Problem]]:
    limits = load_settings().validation.model_copy(update=_NO_LIMITS)
    valid, found = check_rows(
        frame.with_row_index(_INDEX), limits, partition=None, needs_label=False
    )
    problems = [
        Problem(None, None, problem)
        for problem in found.problems
        if problem.startswith(_COLUMN_PROBLEMS)
    ]
    for row in found.invalid.iter_rows(named=True):
        for failed in row["failed_checks"]:
            name, _, rule = failed.partition(": ")
            value = _shown(row[name]) if rule else None
            problem = _shorten(rule or failed)
            problems.append(Problem(row[_INDEX], name if rule else None, problem, value))
    return valid, problems


def _column(field: Field, rows: list[dict[str, Any]], problems: list[Problem]) -> pl.Series:
    values = [row.get(field.name) for row in rows]
    types = set(map(type, values))
    if types <= field.plain or (field.nullable and types <= field.plain | {type(None)}):
        try:
            return field.read(field.name, values)
        except (OverflowError, TypeError, ValueError, pl.exceptions.PolarsError):
            pass
    kept: list[Any] = [None] * len(rows)
    for index, value in enumerate(values):
        if value is None:
            if not field.nullable:
                absent = field.name not in rows[index]
                problems.append(
                    Problem(index, field.name, "is missing" if absent else "must not be null")
                )
            continue
        try:
            kept[index] = field.convert(value)
        except (ValueError, OverflowError):
            problem = f"must be {field.expected}"
            problems.append(Problem(index, field.name, problem, _shown(value)))
    return pl.Series(field.name, kept, dtype=field.dtype, strict=False)


def _fields() -> list[Field]:
    return [
        _field(name, column.dtype.type, column.nullable)
        for name, column in CONTRACT.columns.items()
        if name != LABEL
    ]


def _field(name: str, dtype: pl.DataType, nullable: bool) -> Field:
    def of(plain: type, convert: Callable[[Any], Any], expected: str, read: Any = None) -> Field:
        values = read or (lambda name, values: pl.Series(name, values, dtype, strict=True))
        return Field(name, dtype, nullable, frozenset({plain}), values, convert, expected)

    if dtype.is_integer():
        low, high = _bounds(dtype)
        return of(int, _integer(low, high), f"a whole number from {low} to {high}")
    if dtype.is_float():
        return of(float, _number(dtype), "a number within its type's range", _finite(dtype))
    if dtype == pl.Boolean:
        return of(bool, _instance(bool), "true or false")
    if dtype == pl.Date:
        return of(str, _from_text(date.fromisoformat), "a date like 2013-01-28", _dates)
    if dtype == pl.Datetime:
        zoned = getattr(dtype, "time_zone", None) is not None
        example = "2013-01-28T06:15:00+00:00" if zoned else "2013-01-28T06:15:00"
        return of(str, _from_text(_time(zoned)), f"a time like {example}")
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return of(str, _instance(str), "text")
    raise BadInput(f"the service cannot read the field '{name}': JSON has nothing like {dtype}")


def _dates(name: str, values: list[Any]) -> pl.Series:
    return pl.Series(name, values, pl.String).str.to_date("%Y-%m-%d", strict=True)


def _finite(dtype: pl.DataType) -> Callable[[str, list[Any]], pl.Series]:
    def read(name: str, values: list[Any]) -> pl.Series:
        series = pl.Series(name, values, dtype, strict=True)
        # A number beyond Float32 has become infinite.
        if series.is_infinite().any():
            raise OverflowError
        return series

    return read


def _bounds(dtype: pl.DataType) -> tuple[int, int]:
    bits = int(str(dtype).lstrip("UInt"))
    if dtype.is_unsigned_integer():
        return 0, 2**bits - 1
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def _integer(low: int, high: int) -> Callable[[Any], int]:
    def convert(value: Any) -> int:
        # Writers without an integer type send 7.0.
        whole = type(value) is int or (type(value) is float and value.is_integer())
        if not whole or not low <= value <= high:
            raise ValueError
        return int(value)

    return convert


def _number(dtype: pl.DataType) -> Callable[[Any], float]:
    largest = _LARGEST_FLOAT32 if dtype == pl.Float32 else sys.float_info.max

    def convert(value: Any) -> float:
        if type(value) not in (int, float) or not abs(value) <= largest:
            raise ValueError
        return float(value)

    return convert


def _instance(wanted: type) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if type(value) is not wanted:
            raise ValueError
        return value

    return convert


def _from_text(parse: Callable[[str], Any]) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if type(value) is not str:
            raise ValueError
        return parse(value)

    return convert


def _time(zoned: bool) -> Callable[[str], datetime]:
    def parse(text: str) -> datetime:
        time = datetime.fromisoformat(text)
        if (time.tzinfo is not None) != zoned:
            raise ValueError
        return time

    return parse


def _shown(value: Any) -> Any:
    """Return a value as an error message may show it."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        # What 1e999 has become: JSON cannot say it.
        return value if math.isfinite(value) else "a very large number"
    if isinstance(value, int):
        # Others' parsers lose digits beyond, and Python refuses to print very many.
        return value if abs(value) < 2**53 else "a very large number"
    if isinstance(value, str | date | datetime):
        return _shorten(str(value))
    return "an object" if isinstance(value, dict) else "a list"


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


FIELDS = _fields()
_LABEL_AT = list(CONTRACT.columns).index(LABEL) if LABEL in CONTRACT.columns else 0
_LABEL_TYPE = CONTRACT.columns[LABEL].dtype.type if LABEL in CONTRACT.columns else pl.Null
_GATE = gate(CONTRACT)
