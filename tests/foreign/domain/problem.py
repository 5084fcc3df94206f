"""Is a tumour benign?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from ..ml.metrics import classification as metrics

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

__all__ = ["CANDIDATES", "metrics", "target"]


def target() -> pl.Expr:
    """Return whether it is."""
    return pl.col("benign")


def bayes(trial: BaseTrial, seed: int) -> Any:
    """Naive Bayes, which knows no seed."""
    from sklearn.naive_bayes import GaussianNB

    return GaussianNB(var_smoothing=trial.suggest_float("smoothing", 1e-9, 1e-3, log=True))


CANDIDATES: Mapping[str, Callable[[BaseTrial, int], Any]] = {"bayes": bayes}
