"""Fitting of any estimator, and a wrapper that makes classifiers answer with the classes.

Models carry this module's code with them: loading one needs scikit-learn, not this project.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin

if TYPE_CHECKING:
    import polars as pl

Validation: TypeAlias = tuple[Any, NDArray[Any]]
# A custom fit: estimator, matrix, target, and the validation part if there is one.
Fit: TypeAlias = Callable[[Any, Any, NDArray[Any], Validation | None], dict[str, Any] | None]


class Labelled(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier whose estimator learns codes, 0 and up, and that answers with the classes.

    Not every library accepts words or booleans; all of them accept codes.

    Args:
        estimator: A classifier; it is fitted in place, not a copy.
        threshold: With two classes, the probability from which the second is predicted. Without
            one, or with more classes, the most probable class is predicted.
    """

    def __init__(self, estimator: Any, threshold: float | None = None) -> None:
        self.estimator = estimator
        self.threshold = threshold

    def fit(
        self,
        matrix: Any,
        target: NDArray[Any],
        validation: Validation | None = None,
        hook: Fit | None = None,
    ) -> Labelled:
        """Fit the estimator; validation rows of a class that is not in `target` are left out."""
        classes, codes = np.unique(target, return_inverse=True)
        if validation is not None:
            known = np.isin(validation[1], classes)
            validation = validation[0][known], np.searchsorted(classes, validation[1][known])
        # An array of texts rather than of Python objects.
        self.classes_ = np.array(classes.tolist())
        self.found_ = (hook or _fit)(self.estimator, matrix, codes, validation) or {}
        return self

    def predict_proba(self, rows: Any) -> NDArray[np.float64]:
        """Return the probability of each class, shape (rows, classes)."""
        return np.asarray(self.estimator.predict_proba(rows), dtype=np.float64)

    def predict(self, rows: Any) -> NDArray[Any]:
        """Return the class of each row, shape (rows,)."""
        classes: NDArray[Any] = self.classes_[self.choose(self.predict_proba(rows))]
        return classes

    def choose(self, probabilities: NDArray[np.float64]) -> NDArray[np.intp]:
        """Return the index of the class that is predicted for each row."""
        if self.threshold is not None:
            return np.asarray(probabilities[:, 1] >= self.threshold, dtype=np.intp)
        return np.asarray(probabilities.argmax(axis=1), dtype=np.intp)


def fit(
    estimator: Any,
    matrix: Any,
    target: pl.Series,
    validation: tuple[Any, pl.Series] | None = None,
    hook: Fit | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Fit an estimator; a classifier is one that has `predict_proba`.

    Args:
        estimator: Anything with scikit-learn's `fit` and `predict`.
        matrix: What it learns from, a row for each value of `target`.
        target: Numbers, or classes of any type.
        validation: Matrix and target that the hook may use for early stopping.
        hook: Fits instead of the estimator's own `fit`; a classifier's targets are codes there.

    Returns:
        What predicts, and the parameters that the hook has found.
    """
    values = target.to_numpy()
    given = None if validation is None else (validation[0], validation[1].to_numpy())
    if hasattr(estimator, "predict_proba"):
        labelled = Labelled(estimator).fit(matrix, values, given, hook)
        return labelled, labelled.found_
    return estimator, (hook or _fit)(estimator, matrix, values, given) or {}


def dummy_like(model: Any, target: pl.Series) -> Any:
    """Return a model that knows only the target: the shares of its classes, or its mean."""
    from sklearn.dummy import DummyClassifier, DummyRegressor

    classifies = hasattr(model, "predict_proba")
    dummy = DummyClassifier(strategy="prior") if classifies else DummyRegressor(strategy="mean")
    return dummy.fit(np.zeros((len(target), 1)), np.array(target.to_list()))


def _fit(estimator: Any, matrix: Any, target: NDArray[Any], _: Validation | None) -> None:
    estimator.fit(matrix, target)
