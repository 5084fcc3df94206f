"""The model without the data frames between its steps, which cost more than its arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..domain import problem

Predict: TypeAlias = Callable[[pl.DataFrame], NDArray[np.float64]]


def predictor(model: Any, example: pl.DataFrame | None = None) -> Predict:
    """Return a function that predicts as the model does for the same rows as a pandas frame.

    A pipeline that begins with a column transformer is given each transformer's columns as an
    array, where that holds the very values that scikit-learn would take from a data frame: columns
    of one float type, or of text without nulls. Everything else goes through pandas.

    Args:
        model: A fitted scikit-learn model.
        example: Features to predict with both ways; where they differ, all goes through pandas.
    """

    def through_pandas(rows: pl.DataFrame) -> NDArray[np.float64]:
        return problem.metrics.predict(model, rows.to_pandas())

    parts = _parts(model)
    if parts is None:
        return through_pandas
    transformers, rest = parts

    def directly(rows: pl.DataFrame) -> NDArray[np.float64]:
        encoded = []
        for transformer, columns in transformers:
            array = _array(rows.select(columns))
            if array is None:
                return through_pandas(rows)
            encoded.append(transformer.transform(array))
        return problem.metrics.predict(rest, np.hstack(encoded))

    if example is not None and not np.array_equal(directly(example), through_pandas(example)):
        return through_pandas
    return directly


def _parts(model: Any) -> tuple[list[tuple[Any, list[str]]], Any] | None:
    """Return the fitted transformers with their columns, and the steps after them."""
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

    if type(model) is not Pipeline or len(model.steps) < 2:
        return None
    encoder = model.steps[0][1]
    if type(encoder) is not ColumnTransformer or encoder.sparse_output_:
        return None
    if encoder.transformer_weights or encoder.remainder != "drop":
        return None
    found = []
    for _, transformer, columns in encoder.transformers_:
        if isinstance(transformer, str) or isinstance(columns, str):
            # Some columns are dropped, or passed on as they are.
            if transformer == "drop":
                continue
            return None
        if not all(isinstance(column, str) for column in columns):
            return None
        found.append((transformer, list(columns)))
    return (found, model[1:]) if found else None


def _array(columns: pl.DataFrame) -> NDArray[Any] | None:
    """Return columns as the array that scikit-learn makes of their data frame, or None."""
    if _all(columns, pl.Float32) or _all(columns, pl.Float64):
        return columns.to_numpy()
    if _all(columns, pl.String) and not any(column.null_count() for column in columns):
        array = np.empty(columns.shape, dtype=object)
        for index, column in enumerate(columns):
            array[:, index] = column.to_list()
        return array
    return None


def _all(columns: pl.DataFrame, wanted: type[pl.DataType]) -> bool:
    return all(dtype == wanted for dtype in columns.dtypes)
