"""The libraries of the stages, for a process whose forks are tasks: they begin seconds earlier.

Nothing that a team changes: a task runs what is in `src/` when it begins.
"""

# ruff: noqa: F401

from __future__ import annotations

import contextlib

import matplotlib.figure
import mlflow.sklearn
import mlflow.store.model_registry.sqlalchemy_store
import mlflow.store.tracking.sqlalchemy_store
import optuna
import pandera.polars
import sklearn.ensemble
import sklearn.inspection
import sklearn.linear_model

with contextlib.suppress(ModuleNotFoundError):
    import xgboost
