"""Which package is a function from?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import polars as pl
from sklearn.base import BaseEstimator, TransformerMixin

from ..ml.metrics import classification as metrics

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

__all__ = ["CANDIDATES", "fit", "metrics", "target"]


def target() -> pl.Expr:
    """Return the package's name."""
    return pl.col("package")


class Lengths(TransformerMixin, BaseEstimator):
    """Counts words: a transformer of the team's own."""

    def fit(self, rows: Any, target: Any = None) -> Lengths:
        """Learn nothing."""
        self.fitted_ = True
        return self

    def transform(self, rows: Any) -> Any:
        """Return the number of words of each text beside its length."""
        return rows.assign(text=rows["text"].str.split().str.len())


def words(trial: BaseTrial, seed: int) -> Any:
    """Weigh words in a linear model."""
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    columns = ColumnTransformer(
        [("text", TfidfVectorizer(), "text"), ("length", StandardScaler(), ["length"])]
    )
    strength = trial.suggest_float("C", 1, 100, log=True)
    return make_pipeline(columns, LogisticRegression(C=strength, class_weight="balanced"))


def lightgbm(trial: BaseTrial, seed: int) -> Any:
    """Boost trees on the lengths."""
    from lightgbm import LGBMClassifier
    from sklearn.pipeline import make_pipeline

    leaves = trial.suggest_int("num_leaves", 4, 16)
    trees = LGBMClassifier(n_estimators=300, num_leaves=leaves, random_state=seed, verbose=-1)
    return make_pipeline(Lengths(), trees)


def net(trial: BaseTrial, seed: int) -> Any:
    """Train a small PyTorch net on the lengths, on the CPU."""
    import numpy as np
    import torch
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    from .net import Layers, Net

    torch.manual_seed(seed)
    learner = Net(
        Layers,
        module__hidden=trial.suggest_int("hidden", 8, 32),
        optimizer=torch.optim.Adam,
        lr=0.02,
        max_epochs=15,
        train_split=None,
        verbose=0,
    )
    return make_pipeline(Lengths(), StandardScaler(), FunctionTransformer(np.float32), learner)


def fit(
    estimator: Any, matrix: Any, target: Any, validation: tuple[Any, Any] | None
) -> dict[str, Any]:
    """Stop boosting early, and weigh rare classes as much as frequent ones."""
    from sklearn.utils.class_weight import compute_sample_weight

    last = type(estimator[-1]).__name__
    if last != "LGBMClassifier":
        estimator.fit(matrix, target)
        return {}
    weights = {"lgbmclassifier__sample_weight": compute_sample_weight("balanced", target)}
    if validation is None:
        estimator.fit(matrix, target, **weights)
        return {}
    from lightgbm import early_stopping

    rows, classes = validation
    estimator.fit(
        matrix,
        target,
        **weights,
        lgbmclassifier__eval_set=[(Lengths().transform(rows), classes)],
        lgbmclassifier__callbacks=[early_stopping(5, verbose=False)],
    )
    return {"lgbmclassifier__n_estimators": estimator[-1].best_iteration_}


CANDIDATES: Mapping[str, Callable[[BaseTrial, int], Any]] = {
    "words": words,
    "lightgbm": lightgbm,
    "net": net,
}
