"""The bound of a training run: the same modelling work in one plain script, without the template.

    python bound.py SOURCE TARGET

Same days, checks, features, candidates, search, seed, fits, metrics, plots and MLflow entries as
the generated project's `run training`. TARGET keeps the MLflow store from one call to the next;
the holdout's metrics are written to TARGET/metrics.json.
"""

import html
import io
import json
import os
import sys
from datetime import date
from importlib.metadata import distributions, version
from pathlib import Path

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "true"

import data_path_bound as data
import matplotlib as mpl
import mlflow
import numpy as np
import optuna
import polars as pl
from matplotlib.figure import Figure
from mlflow.models import infer_signature
from scipy.stats import chi2_contingency, ks_2samp
from sklearn import metrics
from sklearn.calibration import calibration_curve
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_limits
from xgboost import XGBClassifier

NAME = "bound"
SEED = 7
TRIALS = 5
MIN_ROC_AUC = 0.55
MAX_PSI = 0.25
SAMPLE_ROWS = 20_000
IMPORTANCE_ROWS = 1_000
CURVE_POINTS = 200
REQUIREMENTS = [
    f"{name}=={version(name)}"
    for name in ("scikit-learn", "xgboost-cpu", "numpy", "pandas", "polars")
]


def linear(trial):
    return LogisticRegression(
        C=trial.suggest_float("C", 1e-3, 10, log=True), max_iter=500, random_state=SEED
    )


def random_forest(trial):
    return RandomForestClassifier(
        n_estimators=trial.suggest_int("n_estimators", 40, 120, step=20),
        max_depth=trial.suggest_int("max_depth", 6, 14),
        min_samples_leaf=trial.suggest_int("min_samples_leaf", 2, 50, log=True),
        random_state=SEED,
    )


def xgboost(trial):
    return XGBClassifier(
        n_estimators=trial.suggest_int("n_estimators", 50, 250, step=50),
        max_depth=trial.suggest_int("max_depth", 3, 8),
        learning_rate=trial.suggest_float("learning_rate", 0.02, 0.3, log=True),
        min_child_weight=trial.suggest_float("min_child_weight", 1, 20, log=True),
        subsample=0.8,
        n_jobs=1,
        random_state=SEED,
    )


CANDIDATES = {"linear": linear, "random_forest": random_forest, "xgboost": xgboost}


def main():
    source, target = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    target.mkdir(parents=True, exist_ok=True)
    threadpool_limits(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    mlflow.set_tracking_uri(f"sqlite:///{target / 'mlflow.db'}")
    if mlflow.get_experiment_by_name(NAME) is None:
        mlflow.create_experiment(NAME, artifact_location=(target / "artifacts").as_uri())
    mlflow.set_experiment(NAME)
    files = data.run(source, target)
    learned, held_out = data.split(files)
    columns = [*data.FEATURES, "target", "date"]
    training, holdout = (
        pl.concat(pl.read_parquet(path, columns=columns) for path in paths)
        for paths in (learned, held_out)
    )
    validation_from = date.fromisoformat(learned[-max(1, len(learned) // 5)].stem)
    with mlflow.start_run(run_name=f"training {files[-1].stem}") as parent:
        mlflow.log_params({"seed": SEED, "trials": TRIALS, "days": len(files)})
        packages = sorted({f"{dist.name}=={dist.version}" for dist in distributions()})
        mlflow.log_text("\n".join(packages), "environment.txt")
        trained = [train(name, training, validation_from) for name in CANDIDATES]
        name, _, model, info, run_id = max(trained, key=lambda item: item[1])
        found = evaluate(model, holdout)
        mlflow.log_metrics({f"holdout_{key}": value for key, value in found.items()})
        mlflow.log_metrics({f"holdout_{key}": v for key, v in found.items()}, run_id=run_id)
        outcome = promote(info, found, holdout)
        importance = feature_importance(model, holdout)
        drift = drift_table(pl.read_parquet(target / "reference.parquet"), holdout)
        sections = {
            f"{name}: {outcome}": [["run", parent.info.run_id]],
            "Candidates": [item[:2] for item in trained],
            "On the holdout": found.items(),
            "Importance": sorted(importance.items(), key=lambda item: -item[1]),
            "Drift": drift,
        }
        page = report(
            sections, plots(holdout["target"].to_numpy(), predict(model, inputs_of(holdout)))
        )
        (target / "report.html").write_text(page)
        mlflow.log_text(page, "report.html")
    (target / "metrics.json").write_text(json.dumps(found))


def encoder():
    return ColumnTransformer(
        [
            (
                "numeric",
                make_pipeline(SimpleImputer(strategy="median"), StandardScaler()),
                data.NUMERIC,
            ),
            (
                "categorical",
                OneHotEncoder(
                    handle_unknown="infrequent_if_exist", min_frequency=0.01, sparse_output=False
                ),
                data.CATEGORICAL,
            ),
        ]
    )


def train(name, frame, validation_from):
    """Search, fit on all days, and log one candidate as a child run."""
    build = CANDIDATES[name]
    early = frame.filter(pl.col("date") < validation_from)
    late = frame.filter(pl.col("date") >= validation_from)
    encode = encoder()
    early_matrix = encode.fit_transform(inputs_of(early))
    late_matrix = encode.transform(inputs_of(late))

    def objective(trial):
        fitted = build(trial).fit(early_matrix, early["target"].to_numpy())
        return score(late["target"].to_numpy(), predict(fitted, late_matrix))["roc_auc"]

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=SEED))
    study.optimize(objective, n_trials=TRIALS)
    model = make_pipeline(encoder(), build(optuna.trial.FixedTrial(study.best_params)))
    inputs = inputs_of(frame)
    model.fit(inputs, frame["target"].to_numpy())
    with mlflow.start_run(run_name=name, nested=True) as child:
        mlflow.log_params({"candidate": name, **study.best_params})
        for number, trial in enumerate(study.trials):
            mlflow.log_metric("trial_validation_roc_auc", trial.value, step=number)
        mlflow.log_metrics({"validation_roc_auc": study.best_value, "training_rows": frame.height})
        example = inputs.head(3)
        info = mlflow.sklearn.log_model(
            model,
            name="model",
            signature=infer_signature(example, predict(model, example)),
            input_example=example,
            pip_requirements=REQUIREMENTS,
            serialization_format="cloudpickle",
        )
    return name, study.best_value, model, info, child.info.run_id


def inputs_of(frame):
    return frame.select(data.FEATURES).to_pandas()


def predict(model, rows):
    return np.asarray(model.predict_proba(rows), dtype=np.float64)[:, 1]


def score(truth, probability):
    return {
        "roc_auc": metrics.roc_auc_score(truth, probability),
        "average_precision": metrics.average_precision_score(truth, probability),
        "brier": metrics.brier_score_loss(truth, probability),
        "log_loss": metrics.log_loss(truth, probability),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, probability >= 0.5),
        "f1": metrics.f1_score(truth, probability >= 0.5),
        "accuracy": float(np.mean((probability >= 0.5) == (truth == 1))),
    }


def evaluate(model, holdout):
    return score(holdout["target"].to_numpy(), predict(model, inputs_of(holdout)))


def promote(info, found, holdout):
    """Register the model as champion, if it passes the gate and beats the present one."""
    client = mlflow.MlflowClient()
    if found["roc_auc"] < MIN_ROC_AUC:
        return "kept: the gate failed"
    if client.search_registered_models(f"name = '{NAME}'"):
        champion = mlflow.sklearn.load_model(f"models:/{NAME}@champion")
        former = evaluate(champion, holdout)
        mlflow.log_metrics({f"champion_{key}": value for key, value in former.items()})
        if found["roc_auc"] <= former["roc_auc"]:
            return "kept: the champion is as good"
    registered = mlflow.register_model(info.model_uri, NAME)
    client.set_registered_model_alias(NAME, "champion", registered.version)
    return f"promoted as version {registered.version}"


def feature_importance(model, holdout):
    rows = holdout.gather_every(holdout.height // IMPORTANCE_ROWS + 1)

    def scorer(fitted, inputs, truth):
        return score(truth, predict(fitted, inputs))["roc_auc"]

    found = permutation_importance(
        model,
        inputs_of(rows),
        rows["target"].to_numpy(),
        scoring=scorer,
        n_repeats=3,
        random_state=SEED,
    )
    return dict(zip(data.FEATURES, found.importances_mean, strict=True))


def drift_table(reference, current):
    rows = []
    for name in data.FEATURES:
        sides = [frame[name] for frame in (reference, current)]
        counted = data.counts(*sides)
        if name in data.NUMERIC:
            values = [side.drop_nulls() for side in sides]
            thinned = [
                side.gather_every(-(-side.len() // SAMPLE_ROWS)).to_numpy() for side in values
            ]
            statistic, p_value = ks_2samp(*thinned, method="asymp")
        else:
            statistic, p_value, *_ = chi2_contingency(np.vstack(counted), correction=False)
        moved = data.psi(*counted)
        nulls = [side.null_count() / side.len() for side in sides]
        rows.append([name, moved, statistic, p_value, *nulls, moved > MAX_PSI])
    return sorted(rows, key=lambda row: -row[1])


def plots(truth, probability):
    def thin(*series):
        keep = np.unique(np.linspace(0, series[0].size - 1, CURVE_POINTS).astype(int))
        return [values[keep] for values in series]

    false_rate, true_rate, _ = metrics.roc_curve(truth, probability)
    precision, recall, _ = metrics.precision_recall_curve(truth, probability)
    observed, predicted = calibration_curve(truth, probability, n_bins=10, strategy="quantile")
    curves = [
        ("false positive rate", "true positive rate", thin(false_rate, true_rate), [0, 1]),
        ("recall", "precision", thin(recall, precision), [truth.mean()] * 2),
        ("predicted probability", "observed share", (predicted, observed), [0, 1]),
    ]
    for xlabel, ylabel, curve, baseline in curves:
        with mpl.rc_context({"svg.fonttype": "none"}):
            figure = Figure(figsize=(4.4, 3.6), layout="constrained")
            axes = figure.subplots()
            axes.plot([0, 1], baseline, linestyle="--", label="guessing")
            axes.plot(*curve, label="model")
            axes.set(xlabel=xlabel, ylabel=ylabel)
            axes.grid()
            axes.legend()
            buffer = io.StringIO()
            figure.savefig(buffer, format="svg")
        yield buffer.getvalue()


def report(sections, figures):
    """Return one page: a table for each section, and the figures."""
    parts = ["<!doctype html><meta charset=utf-8>"]
    for title, rows in sections.items():
        cells = ("".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) for row in rows)
        lines = "".join(f"<tr>{row}</tr>" for row in cells)
        parts.append(f"<h2>{html.escape(title)}</h2><table>{lines}</table>")
    return "\n".join([*parts, *figures])


if __name__ == "__main__":
    main()
