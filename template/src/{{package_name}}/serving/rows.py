"""From the JSON of a request to rows that keep the data contract, or to what is wrong with them.

Pydantic reads the JSON and checks each field; rows that pass are checked as a whole by Pandera,
through the validate stage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Any

import polars as pl
from fastapi import HTTPException
from pydantic import BaseModel, Field, ValidationError, create_model

from ..core.settings import load_settings
from ..interface import load_schema
from ..stages.validate import check_rows
from .fast_path import keeps_contract
from .row_model import row_model

MAX_VIOLATIONS = 100
CONTRACT, LABEL = load_schema().contract, load_schema().label
ROW = row_model(CONTRACT, LABEL)
_LONGEST_TEXT = 200
_INDEX = "__index__"
# Shares of nulls and of invalid rows are limits of a partition; here each row stands for itself.
_NO_LIMITS = {"min_rows": 0, "max_invalid_share": 1.0, "max_null_share": 1.0}


class RowViolation(BaseModel):
    """A rule of the data contract that a row of a request breaks.

    Attributes:
        row: Index in `rows`, from 0; null when all of them are meant.
        field: The field; null when the row as a whole is meant.
        rule: The broken rule.
        value: What was sent.
    """

    row: int | None
    field: str | None
    rule: str
    value: Any = None


class RowsRejected(Exception):
    """Rows break the data contract; nothing was predicted."""

    def __init__(self, violations: Sequence[RowViolation]) -> None:
        super().__init__(f"{len(violations)} violations")
        self.violations = sorted(violations, key=lambda one: -1 if one.row is None else one.row)
        self.rows = len({violation.row for violation in violations})

    @property
    def summary(self) -> str:
        """Return one sentence for people."""
        count = len(self.violations)
        text = f"{_plural(count, 'violation')} in {_plural(self.rows, 'row')}"
        more = f"; the first {MAX_VIOLATIONS} are listed" if count > MAX_VIOLATIONS else ""
        return text + more


class RowReader:
    """Reads the rows of requests.

    Args:
        max_rows: Most rows of a request.
    """

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        row: Any = ROW.type
        rows = Annotated[list[row], Field(min_length=1, max_length=max_rows)]
        self._body: Any = create_model("Body", rows=(rows, ...))

    def read(self, body: bytes) -> pl.DataFrame:
        """Return the rows of a request's body, all of them valid, with the contract's columns.

        Raises:
            HTTPException: The body is not JSON, not `{"rows": [{…}]}`, or has too many rows.
            RowsRejected: Rows break the contract.
        """
        try:
            frame = _frame(self._body.model_validate_json(body).rows)
        except ValidationError as error:
            raise RowsRejected(self._field_violations(error)) from None
        if ROW.complete and keeps_contract(frame, CONTRACT):
            return frame
        if violations := _contract_violations(frame):
            raise RowsRejected(violations)
        return frame

    def _field_violations(self, error: ValidationError) -> list[RowViolation]:
        """Return what pydantic says about fields, or raise what it says about the whole body."""
        errors = error.errors(include_url=False, include_context=False)
        violations: dict[tuple[int | str, ...], RowViolation] = {}
        for one in errors:
            _, *place = one["loc"] if one["loc"] else ("rows",)
            if not place:
                raise self._refusal(one["type"], one["msg"])
            # Beyond row and field it says which of several ways to write a value was tried.
            field = f"{place[1]}" if len(place) > 1 else None
            violations.setdefault(
                tuple(place[:2]),
                RowViolation(
                    row=int(place[0]),
                    field=field,
                    rule=_shorten(one["msg"]),
                    value=None if one["type"] == "missing" else _shown(one["input"]),
                ),
            )
        return list(violations.values())

    def _refusal(self, kind: str, message: str) -> HTTPException:
        if kind == "json_invalid":
            return HTTPException(400, f"the body is not JSON: {_shorten(message)}")
        if kind == "too_long":
            return HTTPException(413, f"at most {self._max_rows:,} rows may be sent at once")
        return HTTPException(422, 'the body must have one row or more in a list: {"rows": [{…}]}')


def as_json(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Return rows as a request sends them: the contract's fields without the label."""
    names = [name for name in ROW.schema if name in rows.columns]
    dates = pl.selectors.temporal().dt.to_string("iso")
    return rows.select(names).with_columns(dates).to_dicts()


def _frame(rows: list[BaseModel]) -> pl.DataFrame:
    """Return rows as a frame of the contract's columns; the label is null."""
    frame = ROW.frame(rows)
    if LABEL in CONTRACT.columns:
        frame = frame.with_columns(pl.lit(None, CONTRACT.columns[LABEL].dtype.type).alias(LABEL))
    return frame.select(list(CONTRACT.columns))


def _contract_violations(frame: pl.DataFrame) -> list[RowViolation]:
    """Return what the validate stage says about rows."""
    limits = load_settings().validation.model_copy(update=_NO_LIMITS)
    numbered = frame.with_row_index(_INDEX)
    valid, findings = check_rows(numbered, limits, partition=None, needs_label=False)
    violations = []
    for row in findings.invalid.iter_rows(named=True):
        for failed in row["failed_checks"]:
            field, _, rule = failed.partition(": ")
            known = {"field": field, "value": _shown(row[field])} if rule else {"field": None}
            violations.append(RowViolation(row=row[_INDEX], rule=_shorten(rule or failed), **known))
    if valid.height + findings.invalid.height < frame.height:
        violations.append(RowViolation(row=None, field=None, rule="the rows cannot be checked"))
    return violations


def _shown(value: Any) -> Any:
    """Return a value as an error message may show it."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        # Others' parsers lose digits beyond, JSON has no infinity, and Python refuses to print
        # very long numbers.
        small = abs(value) < 2**53 if isinstance(value, int) else math.isfinite(value)
        return value if small else "a number that is too large, or none"
    if isinstance(value, str | date | datetime):
        return _shorten(f"{value}")
    return "an object" if isinstance(value, dict) else "a list"


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
