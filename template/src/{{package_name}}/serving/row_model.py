"""The data contract's columns as a pydantic model of a row, without the label.

It reads JSON, names what is wrong with a field, and is what OpenAPI says about a row. Rules of the
contract that pydantic also has become its own; Pandera has the last word, see `rows`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal

import numpy as np
import pandera.polars as pa
import polars as pl
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    NaiveDatetime,
    create_model,
)
from pydantic.json_schema import SkipJsonSchema

from ..core.errors import BadInput

# Pandera's checks of numbers, and what pydantic calls their arguments.
_BOUNDS = {
    "greater_than": {"min_value": "gt"},
    "greater_than_or_equal_to": {"min_value": "ge"},
    "less_than": {"max_value": "lt"},
    "less_than_or_equal_to": {"max_value": "le"},
    "in_range": {"min_value": "ge", "max_value": "le"},
}
_LITERAL: Any = Literal


@dataclass(frozen=True)
class RowModel:
    """How rows are read.

    Attributes:
        type: The pydantic model. Its fields have generated names, since a column may be called
            anything; a column's name is its field's alias.
        schema: The columns with their types, in the order of the model's fields.
        complete: Whether the model has every rule that the contract has for a single row.
    """

    type: type[BaseModel]
    schema: Mapping[str, pl.DataType]
    complete: bool

    def frame(self, rows: list[BaseModel]) -> pl.DataFrame:
        """Return rows that the model has read, one or more, as a frame of the contract's types."""
        values = [vars(row) for row in rows]
        types = dict(zip(values[0], self.schema.values(), strict=True))
        frame = pl.from_dicts(values, schema=types)
        frame.columns = list(self.schema)
        return frame


def row_model(contract: pa.DataFrameSchema, label: str) -> RowModel:
    """Return the model of a row.

    Raises:
        BadInput: A column has a type that JSON has nothing like.
    """
    columns = {name: column for name, column in contract.columns.items() if name != label}
    complete = not contract.checks and not contract.parsers
    fields: dict[str, Any] = {}
    for index, (name, column) in enumerate(columns.items()):
        rules, all_of_them = _rules(column)
        complete &= all_of_them
        kind = _kind(name, column.dtype.type, rules)
        fields[f"field_{index}"] = (
            (kind | None, Field(None, alias=name)) if column.nullable else (kind, Field(alias=name))
        )
    return RowModel(
        type=create_model("Row", __config__=ConfigDict(strict=True), **fields),
        schema={name: column.dtype.type for name, column in columns.items()},
        complete=complete,
    )


def _kind(name: str, dtype: Any, rules: dict[str, Any]) -> Any:
    """Return the annotation of values that have a type and keep rules."""
    if dtype.is_integer():
        limits = _within(rules, *pl.select(low=dtype.min(), high=dtype.max()).row(0))
        # Writers without an integer type send 7.0.
        whole = Annotated[float, Field(**limits, multiple_of=1), AfterValidator(int)]
        integer = Annotated[int, Field(**limits)]
        return Annotated[integer | SkipJsonSchema[whole], Field(union_mode="left_to_right")]
    if dtype.is_float():
        largest = float(np.finfo(np.float32).max) if dtype == pl.Float32 else sys.float_info.max
        return Annotated[float, Field(**_within(rules, -largest, largest), allow_inf_nan=False)]
    if isinstance(dtype, pl.Datetime):
        zone = UTC if dtype.time_zone else None
        # Polars counts nanoseconds in 64 bits, and does not say when they overflow.
        limits = (
            {"ge": datetime(1678, 1, 1, tzinfo=zone), "lt": datetime(2262, 1, 1, tzinfo=zone)}
            if dtype.time_unit == "ns"
            else {}
        )
        return Annotated[AwareDatetime if zone else NaiveDatetime, Field(**limits)]
    if isinstance(dtype, pl.Enum):
        return _LITERAL[tuple(dtype.categories)]
    if dtype in (pl.String, pl.Categorical):
        choices = rules.get("choices")
        return _LITERAL[choices] if choices else Annotated[str, Field(**rules)]
    if dtype in (pl.Boolean, pl.Date):
        return bool if dtype == pl.Boolean else date
    raise BadInput(f"the service cannot read the field '{name}': JSON has nothing like {dtype}")


def _within(rules: Mapping[str, Any], low: float, high: float) -> dict[str, Any]:
    """Return the rules for a number, held to the range of its type."""
    bounds = {"ge": max(low, rules.get("ge", low)), "le": min(high, rules.get("le", high))}
    return {**rules, **bounds}


def _rules(column: pa.Column) -> tuple[dict[str, Any], bool]:
    """Return a column's checks in pydantic's words, and whether these are all it has."""
    rules: dict[str, Any] = {}
    complete = not (column.unique or column.regex or column.parsers)
    for check in column.checks:
        rule = _rule(check, column.dtype.type)
        if rule and "choices" not in rules and rules.keys().isdisjoint(rule):
            rules |= rule
        else:
            complete = False
    return rules, complete and not ("choices" in rules and len(rules) > 1)


def _rule(check: pa.Check, dtype: pl.DataType) -> dict[str, Any] | None:
    """Return a check in pydantic's words; None where pydantic might judge a value otherwise."""
    if check.raise_warning or not check.ignore_na or check.groupby is not None:
        return None
    given = {name: value for name, value in (check.statistics or {}).items() if value is not None}
    if dtype == pl.String:
        return _text_rule(check.name, given)
    number: tuple[type, ...] = (int,) if dtype.is_integer() else (int, float)
    rule = {
        _strict(name, given): given[argument]
        for argument, name in _BOUNDS.get(check.name or "", {}).items()
        if argument in given
    }
    if not dtype.is_numeric() or any(type(bound) not in number for bound in rule.values()):
        return None
    # A value next to a bound may be rounded to it, after pydantic has seen it.
    return None if dtype == pl.Float32 and {"gt", "lt"} & rule.keys() else rule


def _strict(name: str, given: Mapping[str, Any]) -> str:
    """Return the name of a bound, which may itself be left out."""
    if name == "ge" and given.get("include_min") is False:
        return "gt"
    return "lt" if name == "le" and given.get("include_max") is False else name


def _text_rule(check: str | None, given: Mapping[str, Any]) -> dict[str, Any] | None:
    if check == "isin":
        choices = tuple(given.get("allowed_values", ()))
        return {"choices": choices} if all(type(text) is str for text in choices) else None
    if check == "str_matches" and isinstance(pattern := given.get("pattern"), str):
        # Pandera matches the pattern at the beginning of a text.
        return {"pattern": pattern if pattern.startswith("^") else f"^{pattern}"}
    if check == "str_length":
        exact = given.get("exact_value")
        bounds = {
            "min_length": given.get("min_value", exact),
            "max_length": given.get("max_value", exact),
        }
        return {name: bound for name, bound in bounds.items() if bound is not None}
    return None
