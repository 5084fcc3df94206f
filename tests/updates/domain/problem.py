"""The prediction problem: does a flight arrive more than 20 minutes late? Ours.

A candidate is a function of an Optuna trial and a seed: it asks the trial for parameters and
returns an estimator that is not yet fitted. The pipeline trains all of them and keeps the best;
`candidates` in config/pipeline.toml names those to try.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from ..ml.metrics import classification as metrics

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

__all__ = ["CANDIDATES", "metrics", "target"]

LATE_AFTER_MINUTES = 20


def target() -> pl.Expr:
    """Return what is predicted: 1 for late, 0 for on time, null where there is no arrival."""
    return (pl.col("arr_delay") > LATE_AFTER_MINUTES).cast(pl.Int8)


def linear(trial: BaseTrial, seed: int) -> Any:
    """Logistic regression."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(
        C=trial.suggest_float("C", 1e-3, 10, log=True), max_iter=500, random_state=seed
    )


def tree(trial: BaseTrial, seed: int) -> Any:
    """Return our own candidate: one small tree."""
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(max_depth=trial.suggest_int("max_depth", 3, 5), random_state=seed)


def random_forest(trial: BaseTrial, seed: int) -> Any:
    """Random forest."""
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(
        n_estimators=trial.suggest_int("n_estimators", 40, 120, step=20),
        max_depth=trial.suggest_int("max_depth", 6, 14),
        min_samples_leaf=trial.suggest_int("min_samples_leaf", 2, 50, log=True),
        random_state=seed,
    )


def xgboost(trial: BaseTrial, seed: int) -> Any:
    """Gradient-boosted trees."""
    from xgboost import XGBClassifier

    return XGBClassifier(
        n_estimators=trial.suggest_int("n_estimators", 50, 250, step=50),
        max_depth=trial.suggest_int("max_depth", 3, 8),
        learning_rate=trial.suggest_float("learning_rate", 0.02, 0.3, log=True),
        min_child_weight=trial.suggest_float("min_child_weight", 1, 20, log=True),
        subsample=0.8,
        # Candidates train side by side; more threads here would only compete with each other.
        n_jobs=1,
        random_state=seed,
    )


CANDIDATES: Mapping[str, Callable[[BaseTrial, int], Any]] = {
    "linear": linear,
    "tree": tree,
    "random_forest": random_forest,
    "xgboost": xgboost,
}


def late_share(model: Any, rows: Any) -> float:
    """Return the share of flights that a model calls late; our own report needs it."""
    return float(metrics.predict(model, rows)["prediction"].to_numpy().mean())
