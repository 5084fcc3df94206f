"""What OpenAPI says about requests and answers: fields from the data contract, a row from data."""

from __future__ import annotations

from typing import Any

import polars as pl
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from ..core.logs import get_logger
from ..core.paths import project_root
from ..domain.features import KEY
from ..stages.validate import CONTRACT
from ..stages.validate import read_rows as read_file
from .rows import FIELDS, Field, RowsRejected, check

log = get_logger(__name__)

DESCRIPTION = (
    "Predictions by the champion of the model registry. Rows keep the data contract; the label is "
    "not needed, and fields beyond the contract are ignored. A field that may be null may be left "
    "out."
)
_ROW = "#/components/schemas/Row"
_SENTENCE: dict[str, Any] = {"type": "object", "properties": {"detail": {"type": "string"}}}
_PROBLEM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "row": {"type": ["integer", "null"], "description": "index in rows, from 0"},
        "field": {"type": ["string", "null"]},
        "problem": {"type": "string"},
        "value": {"description": "what was sent"},
    },
}
_TYPES = {int: "integer", float: "number", bool: "boolean", str: "string"}
# How OpenAPI calls the arguments of the contract's checks.
_RULES = {
    "isin": {"allowed_values": "enum"},
    "in_range": {"min_value": "minimum", "max_value": "maximum"},
    "greater_than": {"min_value": "exclusiveMinimum"},
    "greater_than_or_equal_to": {"min_value": "minimum"},
    "less_than": {"max_value": "exclusiveMaximum"},
    "less_than_or_equal_to": {"max_value": "maximum"},
    "str_matches": {"pattern": "pattern"},
}


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


READY_RESPONSES: dict[int | str, dict[str, Any]] = {503: _json("No champion yet", _SENTENCE)}
PREDICT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: _json(
        "A prediction for each row, in their order", {"$ref": "#/components/schemas/Answer"}
    ),
    400: _json("The body is not JSON", _SENTENCE),
    401: _json("The token is missing or wrong", _SENTENCE),
    413: _json("The body is too large, or has too many rows", _SENTENCE),
    415: _json("The body is not announced as JSON", _SENTENCE),
    422: _json(
        "Rows break the data contract; nothing was predicted",
        {
            "type": "object",
            "properties": {
                **_SENTENCE["properties"],
                "problems": {"type": "array", "items": _PROBLEM},
            },
        },
    ),
    503: _json("No champion is loaded yet", _SENTENCE),
    504: _json("The request took too long", _SENTENCE),
}


def request_body(max_rows: int) -> dict[str, Any]:
    """Return what a request for predictions holds."""
    rows = {"type": "array", "minItems": 1, "maxItems": max_rows, "items": {"$ref": _ROW}}
    schema = {"type": "object", "required": ["rows"], "properties": {"rows": rows}}
    return {"required": True, "content": {"application/json": {"schema": schema}}}


class Example:
    """A row of the sample that the project ships, once it has been read; none of the source."""

    def __init__(self) -> None:
        self.row: dict[str, Any] | None = None

    def load(self) -> None:
        """Read the row; without one the documentation does without."""
        try:
            newest = max((project_root() / "data" / "sample").glob("*.parquet"))
            self.row = first_valid(read_file(str(newest)))
        except Exception as error:
            log.info("no example for the documentation: %s", error)


def first_valid(rows: pl.DataFrame) -> dict[str, Any] | None:
    """Return the first row that keeps the contract, as JSON has it; None if there is none."""
    for row in as_json(rows.head(20)):
        try:
            check([row])
        except RowsRejected:
            continue
        return row
    return None


def as_json(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Return rows as a request sends them: the contract's fields without the label."""
    names = [field.name for field in FIELDS if field.name in rows.columns]
    dates = pl.selectors.temporal().dt.to_string("iso")
    return rows.select(names).with_columns(dates).to_dicts()


def install(app: FastAPI) -> Example:
    """Make an application describe rows; returns the example, which is still to be loaded."""
    example = Example()

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            schemas = found.setdefault("components", {}).setdefault("schemas", {})
            schemas["Row"] = _row_schema()
            schemas["Answer"] = _answer_schema()
            if example.row is None:
                return found
            body = found["paths"]["/predict"]["post"]["requestBody"]
            body["content"]["application/json"]["example"] = {"rows": [example.row]}
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]
    return example


def _row_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "required": [field.name for field in FIELDS if not field.nullable],
        "properties": {field.name: _field_schema(field) for field in FIELDS},
    }


def _answer_schema() -> dict[str, Any]:
    keys = {field.name: _field_schema(field) for field in FIELDS if field.name in KEY}
    row = {"type": "object", "properties": {**keys, "prediction": {"type": "number"}}}
    return {
        "type": "object",
        "properties": {
            "model_version": {"type": "integer"},
            "predictions": {"type": "array", "items": row},
        },
    }


def _field_schema(field: Field) -> dict[str, Any]:
    kind = next((name for known, name in _TYPES.items() if known in field.plain), "string")
    found: dict[str, Any] = {"type": [kind, "null"] if field.nullable else kind}
    if field.dtype in (pl.Date, pl.Datetime):
        found["format"] = "date" if field.dtype == pl.Date else "date-time"
    for check_ in CONTRACT.columns[field.name].checks:
        for argument, name in _RULES.get(check_.name, {}).items():
            if argument in check_.statistics:
                value = check_.statistics[argument]
                found[name] = list(value) if name == "enum" else value
    return found
