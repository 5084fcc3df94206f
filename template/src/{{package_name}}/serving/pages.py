"""What the service answers, as OpenAPI describes it; a request's rows, and an example of one."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic_core import to_json
from upath import UPath

from ..core.logs import get_logger
from ..core.paths import project_root
from ..core.registry import model_name
from ..interface import load_schema
from ..sources.read import read_file
from .champion import Check, Follower
from .rows import ROW, RowReader, RowsRejected, RowViolation, as_json

log = get_logger(__name__)

DESCRIPTION = (
    "Predictions by the champion of the model registry. Rows keep the data contract; the label is "
    "not needed, and fields beyond the contract are ignored. A field that may be null may be left "
    "out."
)


class Refusal(BaseModel):
    """Why a request is not answered, in a sentence."""

    detail: str


class Rejection(Refusal):
    """Rows break the data contract; the first violations are listed."""

    violations: list[RowViolation] = []


class ModelPage(BaseModel):
    """What is served; the model's fields are null until one is loaded."""

    name: str
    version: int | None = None
    candidate: str | None = None
    trained_until: str | None = None
    registered: datetime | None = None
    run_url: str | None = None
    metrics: dict[str, float] = {}
    loaded_since: datetime | None = None
    source: str | None = None
    registry: Check


_KEY_FIELDS: dict[str, Any] = {
    name: (field.rebuild_annotation(), field)
    for name, field in ROW.type.model_fields.items()
    if field.alias in load_schema().key
}
_PROBABILITIES: Any = {"patternProperties": {"^probability_": {"type": "number"}}}
_PREDICTION: Any = create_model(
    "Prediction",
    __config__=ConfigDict(json_schema_extra=_PROBABILITIES),
    **_KEY_FIELDS,
    prediction=(
        bool | float | str,
        Field(description="The number or, beside a `probability_<class>` for each, the class"),
    ),
)


class Answer(BaseModel):
    """A prediction for each row, in their order, beside the columns that identify the row."""

    model_version: int
    predictions: list[_PREDICTION]


_REFUSED = {
    400: "The body is not JSON",
    401: "The token is missing or wrong",
    413: "The body is too large, or has too many rows",
    415: "The body is not announced as JSON",
    503: "No champion is loaded yet",
    504: "The request took too long",
}
READY_RESPONSES: dict[int | str, dict[str, Any]] = {
    503: {"model": Refusal, "description": _REFUSED[503]}
}
PREDICT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": Answer, "description": "A prediction for each row, in their order"},
    422: {"model": Rejection, "description": "Rows break the contract; nothing was predicted"},
    **{status: {"model": Refusal, "description": text} for status, text in _REFUSED.items()},
}


def request_body(max_rows: int) -> dict[str, Any]:
    """Return what a request for predictions holds, with a row of the sample as example."""
    row = ROW.type.model_json_schema()
    rows = {"type": "array", "minItems": 1, "maxItems": max_rows, "items": row}
    media: dict[str, Any] = {
        "schema": {"type": "object", "required": ["rows"], "properties": {"rows": rows}}
    }
    if example := _example():
        media["example"] = {"rows": [example]}
    return {"required": True, "content": {"application/json": media}}


def model_page(follower: Follower) -> ModelPage:
    """Return the description of the served model and of the last look into the registry."""
    champion = follower.champion
    if champion is None:
        return ModelPage(name=model_name(), registry=follower.last)
    return ModelPage(
        **champion.description.model_dump(exclude={"key", "registry", "created"}),
        registered=champion.description.created,
        loaded_since=champion.loaded,
        source=champion.source,
        registry=follower.last,
    )


def _example() -> dict[str, Any] | None:
    """Return a row of the sample in the project that keeps the contract, if there is one."""
    reader = RowReader(1)
    try:
        newest = max((project_root() / "data" / "sample").glob("*.parquet"))
        for row in as_json(read_file(UPath(newest)).head(20)):
            try:
                reader.read(to_json({"rows": [row]}))
            except RowsRejected:
                continue
            return row
    except Exception as error:
        log.info("no example for the documentation: %s", error)
    return None
