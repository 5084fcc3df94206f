"""A quick answer to one question: do all rows keep the data contract?

The contract's own checks, asked for their polars expressions once and evaluated in one query.
Naming what is wrong, and the last word, stay with the validate stage.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Registers the checks of polars, which Pandera itself does when it first validates.
import pandera.backends.polars.builtin_checks  # noqa: F401
import pandera.polars as pa
import polars as pl
from pandera.api.polars.types import PolarsData


class _Recorder:
    """Stands in for a lazy frame and keeps the expression that a check selects from it."""

    def __init__(self) -> None:
        self.expressions: list[pl.Expr] = []

    def select(self, *expressions: pl.Expr) -> _Recorder:
        self.expressions += expressions
        return self


def gate(contract: pa.DataFrameSchema) -> Callable[[pl.DataFrame], bool] | None:
    """Return a function that tells whether a frame of the contract's columns keeps it.

    Returns:
        None where the contract has rules other than checks of a column that are one expression.
    """
    if contract.checks or contract.parsers:
        return None
    required = [name for name, column in contract.columns.items() if not column.nullable]
    expressions: list[pl.Expr] = []
    for name, column in contract.columns.items():
        if column.unique or column.regex or column.parsers:
            return None
        for check in column.checks:
            expression = _expression(check, name)
            if expression is None:
                return None
            # A null is no failure unless the check says so.
            kept = expression if check.ignore_na else expression.fill_null(False)
            expressions.append(kept.all(ignore_nulls=True))
    question = pl.all_horizontal(expressions) if expressions else pl.lit(True)
    unique = list(contract.unique or [])

    def keeps(frame: pl.DataFrame) -> bool:
        if any(frame.get_column(name).null_count() for name in required):
            return False
        if unique and frame.height > 1 and frame.select(unique).is_duplicated().any():
            return False
        return bool(frame.select(question).item())

    return keeps


def _expression(check: Any, name: str) -> pl.Expr | None:
    """Return the expression of a check; None where it works in another way."""
    if check.element_wise or check.groupby is not None:
        return None
    recorder: Any = _Recorder()
    function = check._check_fn
    # The one for polars may have been registered after the check was made.
    if check.is_builtin_check(getattr(function, "__name__", "")):
        function = check.get_builtin_check_fn(function.__name__)
    try:
        function(PolarsData(recorder, name), **check._check_kwargs)
    except Exception:
        return None
    return recorder.expressions[0] if len(recorder.expressions) == 1 else None
