"""Steps of the example's own: one after each stage that they may follow, and two after one."""

from __future__ import annotations

from typing import Any


def count_rows(run: Any, dataset: Any) -> dict[str, Any]:
    """Say how many rows are valid."""
    return {"rows": dataset.rows, "partition": run.partition}


def look_twice(run: Any, dataset: Any) -> None:
    """Look at them once more, and return nothing."""


def tell(run: Any, promotion: Any) -> Any:
    """Return what was decided, as it is."""
    return promotion.verdict


def deliver(run: Any, scores: Any) -> dict[str, Any]:
    """Say where the predictions are."""
    return {"to": scores.uri}


AFTER_VALIDATE = (count_rows, look_twice)
AFTER_PROMOTE = (tell,)
AFTER_SCORE = (deliver,)
