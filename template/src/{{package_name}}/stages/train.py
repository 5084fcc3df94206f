"""train: tune one candidate on time-ordered data, fit it, and log it to MLflow."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from importlib import metadata
from typing import Any, TypeAlias

import mlflow.sklearn
import optuna
import polars as pl
from mlflow.models import infer_signature
from sklearn.pipeline import Pipeline, make_pipeline
from threadpoolctl import threadpool_limits

from ..core import storage, tracking
from ..core.errors import BadInput
from ..core.logs import get_logger
from ..core.refs import CandidateRef, FeaturesRef, Run
from ..core.stage import stage
from ..domain import problem
from ..domain.features import FEATURES, encoder

log = get_logger(__name__)

Builder: TypeAlias = Callable[[Any, int], Any]
PRIMARY = problem.metrics.PRIMARY

# Every trial is in MLflow; a log line each would drown the others. The error of one that fails is
# the stage's, and may hold a secret until the stage has ended.
optuna.logging.set_verbosity(optuna.logging.ERROR)

# What the logged model needs to be loaded again; naming it saves MLflow a slow guess.
REQUIREMENTS = [
    f"{name}=={metadata.version(name)}"
    for name in ("scikit-learn", "xgboost-cpu", "numpy", "pandas", "polars")
]


@stage
def train(run: Run, features: FeaturesRef, candidate: str) -> CandidateRef:
    """Tune and fit one candidate on the days before the holdout.

    The newest fifth of the training days (at least one) scores Optuna's trials; the model is then
    fitted on all training days with the best parameters. Same features, seed and library versions
    give the same model.

    Raises:
        BadInput: There is no candidate of that name, or no day is left to learn from.
    """
    build = _builder_of(candidate)
    settings = run.settings.training
    frame, days = _read_training_rows(features)
    # Candidates train side by side; threads of their own beyond this only wait for each other.
    threadpool_limits(settings.threads)
    validation_from = days[-max(1, len(days) // 5)]
    study = _tune(frame, validation_from, build, settings.trials, settings.seed)
    model = make_pipeline(
        encoder(), build(optuna.trial.FixedTrial(study.best_params), settings.seed)
    )
    model.fit(frame.select(FEATURES).to_pandas(), frame["target"].to_numpy())
    run_id, model_uri = _log_to_mlflow(run, features, candidate, study, model, frame)
    log.info("validation %s %.4f with %s", PRIMARY, study.best_value, study.best_params)
    return CandidateRef(
        candidate=candidate,
        tracking_run_id=run_id,
        model_uri=model_uri,
        score=study.best_value,
        params=study.best_params,
        fingerprint=storage.fingerprint(
            features.fingerprint,
            candidate,
            json.dumps(study.best_params),
            repr(model),
            *REQUIREMENTS,
        ),
        trained_until=days[-1],
        reference_uri=features.reference_uri or "",
        window=features.window,
    )


def _builder_of(candidate: str) -> Builder:
    if candidate not in problem.CANDIDATES:
        raise BadInput(
            f"no candidate '{candidate}' in domain/; there are: {', '.join(problem.CANDIDATES)}"
        )
    return problem.CANDIDATES[candidate]


def _read_training_rows(features: FeaturesRef) -> tuple[pl.DataFrame, list[date]]:
    """Return the rows of the days before the holdout, and these days, oldest first."""
    files = [
        file
        for file in storage.read_manifest(features.uri)
        if features.holdout_from and file.partition < features.holdout_from
    ]
    if len(files) < 2:
        raise BadInput("fewer than two training days before the holdout: widen window_days")
    rows = storage.read_partitions(files, [*FEATURES, "target", "date"])
    return rows, [file.partition for file in files]


def _log_to_mlflow(
    run: Run,
    features: FeaturesRef,
    candidate: str,
    study: optuna.Study,
    model: Pipeline,
    frame: pl.DataFrame,
) -> tuple[str, str]:
    """Log a fitted candidate; returns the ids of its run and the address of its model."""
    run_id = tracking.open_child(run, candidate, features.window)
    tracking.log_params(run_id, {"candidate": candidate, **study.best_params})
    for trial in study.trials:
        value = {f"trial_validation_{PRIMARY}": trial.value or 0.0}
        tracking.log_metrics(run_id, value, step=trial.number)
    best = {f"validation_{PRIMARY}": study.best_value, "training_rows": frame.height}
    tracking.log_metrics(run_id, best)
    tracking.log_dataset(run_id, "features", features.uri, features.fingerprint, frame.height)
    example = frame.select(FEATURES).head(3).to_pandas()
    with tracking.active(run_id):
        logged = mlflow.sklearn.log_model(
            model,
            name="model",
            signature=infer_signature(example, problem.metrics.predict(model, example)),
            input_example=example,
            pip_requirements=REQUIREMENTS,
            serialization_format="cloudpickle",
        )
    return run_id, logged.model_uri


def _tune(
    frame: pl.DataFrame, validation_from: date, build: Builder, trials: int, seed: int
) -> optuna.Study:
    """Search parameters: fit on the days before `validation_from`, score on those from it on.

    The encoder is fitted once, on the fitting days only: it has no parameters to tune.
    """
    early = frame.filter(pl.col("date") < validation_from)
    late = frame.filter(pl.col("date") >= validation_from)
    encode = encoder()
    fit_matrix = encode.fit_transform(early.select(FEATURES).to_pandas())
    late_matrix = encode.transform(late.select(FEATURES).to_pandas())
    fit_target, late_target = early["target"].to_numpy(), late["target"].to_numpy()

    def objective(trial: optuna.Trial) -> float:
        estimator = build(trial, seed).fit(fit_matrix, fit_target)
        prediction = problem.metrics.predict(estimator, late_matrix)
        return problem.metrics.score(late_target, prediction)[PRIMARY]

    study = optuna.create_study(
        direction="maximize" if problem.metrics.GREATER_IS_BETTER else "minimize",
        sampler=optuna.samplers.TPESampler(seed=seed),
    )
    study.optimize(objective, n_trials=trials)
    return study
