"""train: tune one candidate on the rows to learn from, fit it, and log it to MLflow."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import mlflow.sklearn
import optuna
import polars as pl
from mlflow.models import infer_signature
from sklearn.pipeline import Pipeline, make_pipeline
from threadpoolctl import threadpool_limits

from .. import ml
from ..core import storage, tracking
from ..core.errors import BadInput
from ..core.logs import get_logger
from ..core.refs import CandidateRef, FeaturesRef, PartitionFile, Run
from ..core.settings import Settings
from ..core.stage import stage
from ..interface import domain_package, load_features, load_problem, load_schema
from ..ml import splits
from ..ml.estimators import fit
from ..ml.requirements import carry, requirements_of

log = get_logger(__name__)

# How many predictions identify a model.
SAMPLED_ROWS = 500
# The purpose of the rows that a further split of the learned ones gives.
TUNED = "to tune on"

Builder: TypeAlias = Callable[[Any, int], Any]

# Every trial is in MLflow; a log line each would drown the others. A failed trial's error is the
# stage's, and may hold a secret until the stage has ended.
optuna.logging.set_verbosity(optuna.logging.ERROR)


class Fitted(NamedTuple):
    """What was learned: the model, the parameters found, and what the model needs installed."""

    model: Pipeline
    params: dict[str, Any]
    requirements: list[str]


@stage
def train(run: Run, features: FeaturesRef, candidate: str) -> CandidateRef:
    """Tune and fit one candidate on the rows that are not held out.

    Some of them score Optuna's trials: with a split by time the newest fifth of the partitions (at
    least one), else as many as are held out. The model is then fitted on all with the best
    parameters. Same features, seed and library versions give the same model.

    Raises:
        BadInput: No candidate has that name, there is too little to learn from, or only one
            class or value.
    """
    build = _builder_of(candidate)
    settings = run.settings.training
    frame, early, late, files = _read_training_rows(run.settings, features)
    # Candidates train side by side; more threads per candidate only wait for each other.
    threadpool_limits(settings.threads)
    study = _tune(early, late, build, settings.trials, settings.seed)
    fitted = _fit_best(frame, build, study, settings.seed)
    run_id, model_uri = _log_to_mlflow(run, features, candidate, study, fitted, frame)
    primary = load_problem().metrics.PRIMARY
    log.info("validation %s %.4f with %s", primary, study.best_value, fitted.params)
    return CandidateRef(
        candidate=candidate,
        tracking_run_id=run_id,
        model_uri=model_uri,
        score=study.best_value,
        params=fitted.params,
        fingerprint=storage.fingerprint(
            features.fingerprint,
            ",".join(load_features().names),
            candidate,
            json.dumps(fitted.params),
            _behaviour(fitted.model, frame),
            *fitted.requirements,
        ),
        features_fingerprint=features.fingerprint,
        trained_until=files[-1].partition,
        reference_uri=features.reference_uri or "",
        window=features.window,
    )


def _builder_of(candidate: str) -> Builder:
    candidates = load_problem().candidates
    if candidate not in candidates:
        raise BadInput(
            f"no candidate '{candidate}' in domain/problem.py; there are: {', '.join(candidates)}"
        )
    return candidates[candidate]


def _read_training_rows(
    settings: Settings, features: FeaturesRef
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, list[PartitionFile]]:
    """Return all rows to learn from, those to tune on and to validate on, and their files."""
    files = list(storage.read_manifest(features.uri))
    names, training = [*load_features().names, "target"], settings.training
    if settings.splits_by_time and len(files) < 2:
        raise BadInput("fewer than two partitions before the holdout: widen [training] window")
    group = load_schema().group if settings.split in ("group", "time_and_group") else ()
    rows = storage.read_partitions(files, list(dict.fromkeys((*names, *group))))
    if settings.splits_by_time:
        newest = max(1, len(files) // 5)
        gap = min(training.gap, len(files) - newest - 1)
        early, late = splits.by_time(files, newest, gap)
        first, last = (sum(file.rows for file in part) for part in (early, late))
        newer = rows[rows.height - last :]
        older = splits.without_groups(rows[:first], newer.select(group))
        if older.is_empty():
            raise BadInput("each group is also in the newest partitions: widen [training] window")
        for part, of in ((older, early), (newer, late)):
            splits.refuse_one_value(part["target"], TUNED, [file.partition for file in of])
        return rows.select(names), older.select(names), newer.select(names), files
    held = splits.by_row(rows["target"], rows.select(group), training.holdout_share, training.seed)
    frame = rows.select(names)
    older, newer = frame.filter(~held), frame.filter(held)
    for part in (older, newer):
        splits.refuse_one_value(part["target"], TUNED, [file.partition for file in files])
    return frame, older, newer, files


def _inputs(rows: pl.DataFrame) -> Any:
    """Return the features as estimators take them: a pandas frame."""
    return rows.select(load_features().names).to_pandas()


def _fit_best(frame: pl.DataFrame, build: Builder, study: optuna.Study, seed: int) -> Fitted:
    """Fit on all rows with the best trial's parameters, and with what its fit has found."""
    best = study.best_trial
    found, threshold = best.user_attrs["found"], best.user_attrs["threshold"]
    estimator = build(optuna.trial.FixedTrial(best.params), seed)
    if found:
        estimator.set_params(**found)
    encode, target = load_features().encoder(), frame["target"]
    matrix = encode.fit_transform(_inputs(frame), target.to_numpy())
    last, _ = fit(estimator, matrix, target, hook=load_problem().fit)
    params = {**best.params, **found}
    if threshold is not None:
        last.threshold = params["threshold"] = threshold
    model = make_pipeline(encode, last)
    carry(domain_package(), ml)
    return Fitted(model, params, requirements_of(model))


def _behaviour(model: Pipeline, rows: pl.DataFrame) -> str:
    """Return what a model predicts for an even sample of rows, as CSV with nine digits.

    It distinguishes models whatever makes them differ: an argument, a hook, a transformer's code.
    """
    sample = rows.gather_every(rows.height // SAMPLED_ROWS + 1)
    return load_problem().metrics.predict(model, _inputs(sample)).write_csv(float_precision=9)


def _log_to_mlflow(
    run: Run,
    features: FeaturesRef,
    candidate: str,
    study: optuna.Study,
    fitted: Fitted,
    frame: pl.DataFrame,
) -> tuple[str, str]:
    """Log a fitted candidate; returns the ids of its run and the address of its model."""
    metrics = load_problem().metrics
    params = {"candidate": candidate, **fitted.params}
    run_id = tracking.open_child(run, candidate, features.window, params, features.fingerprint)
    tracking.log_params(run_id, params)
    for trial in study.trials:
        value = {f"trial_validation_{metrics.PRIMARY}": trial.value or 0.0}
        tracking.log_metrics(run_id, value, step=trial.number)
    best = {f"validation_{metrics.PRIMARY}": study.best_value, "training_rows": frame.height}
    tracking.log_metrics(run_id, best)
    tracking.log_dataset(run_id, "features", features.uri, features.fingerprint, frame.height)
    example = _inputs(frame.head(3))
    with tracking.active(run_id):
        logged = mlflow.sklearn.log_model(
            fitted.model,
            name="model",
            signature=infer_signature(example, fitted.model.predict(example)),
            input_example=example,
            pip_requirements=fitted.requirements,
            serialization_format="cloudpickle",
        )
    return run_id, logged.model_uri


def _tune(
    early: pl.DataFrame, late: pl.DataFrame, build: Builder, trials: int, seed: int
) -> optuna.Study:
    """Search parameters: fit on the early rows, score on the late ones.

    The encoder is fitted once, on the early rows only: it has no parameters to tune.
    """
    problem, encode = load_problem(), load_features().encoder()
    metrics, rule = problem.metrics, problem.threshold
    fit_target, late_target = early["target"], late["target"]
    fit_matrix = encode.fit_transform(_inputs(early), fit_target.to_numpy())
    late_matrix = encode.transform(_inputs(late))

    def objective(trial: optuna.Trial) -> float:
        validation = (late_matrix, late_target)
        fitted, found = fit(build(trial, seed), fit_matrix, fit_target, validation, problem.fit)
        threshold = None
        if rule and len(fitted.classes_) == 2:
            second = late_target.to_numpy() == fitted.classes_[1]
            threshold = float(rule(second, fitted.predict_proba(late_matrix)[:, 1]))
            fitted.threshold = threshold
        trial.set_user_attr("found", found)
        trial.set_user_attr("threshold", threshold)
        return metrics.score(late_target, metrics.predict(fitted, late_matrix))[metrics.PRIMARY]

    study = optuna.create_study(
        direction="maximize" if metrics.GREATER_IS_BETTER else "minimize",
        sampler=optuna.samplers.TPESampler(seed=seed),
    )
    study.optimize(objective, n_trials=trials)
    return study
