"""evaluate: the challenger against the gates and the champion, on days neither was tuned on."""

from __future__ import annotations

import json
from datetime import date
from typing import TYPE_CHECKING, Any

import polars as pl

from ..core import storage, tracking
from ..core.errors import BadInput
from ..core.logs import get_logger
from ..core.refs import CandidateRef, Decision, EvaluationRef, FeaturesRef, Run
from ..core.settings import Gates, load_settings
from ..core.stage import stage
from ..domain import problem
from ..domain.features import FEATURES
from ..ml.drift import drift_table
from .ingest import wider_window_is_available

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

log = get_logger(__name__)

IMPORTANCE_ROWS = 1_000


@stage
def evaluate(run: Run, features: FeaturesRef, candidate: CandidateRef) -> EvaluationRef:
    """Measure the challenger and the champion on the holdout days and decide by the gates.

    The decision is `promote` when every gate holds, `retrain` when one fails and a wider window
    of partitions is there to learn from, and `keep` otherwise.
    """
    files = storage.read_manifest(features.uri)
    holdout = storage.read_partitions(
        [
            file
            for file in files
            if features.holdout_from and file.partition >= features.holdout_from
        ],
        [*FEATURES, "target", "date"],
    )
    target, inputs = holdout["target"].to_numpy(), holdout.select(FEATURES).to_pandas()
    model = tracking.load_model(candidate.model_uri)
    prediction = problem.metrics.predict(model, inputs)
    metrics = problem.metrics.score(target, prediction)

    champion = tracking.version_of(tracking.CHAMPION)
    champion_metrics: dict[str, float] = {}
    if champion is not None:
        former = tracking.load_model(f"models:/{champion.name}/{champion.version}")
        champion_metrics = problem.metrics.score(target, problem.metrics.predict(former, inputs))

    failures, reasons = check_gates(metrics, champion_metrics, load_settings().gates)
    is_champion = champion is not None and (
        champion.tags.get(tracking.FINGERPRINT_TAG) == candidate.fingerprint
    )
    decision: Decision
    if is_champion:
        decision, reasons = "keep", ["this very model already is the champion"]
    elif not failures:
        decision = "promote"
    elif features.attempt == 1 and wider_window_is_available(run):
        decision = "retrain"
        reasons.append("a wider window of partitions is there: train once more with it")
    else:
        decision = "keep"
    if champion is not None and not is_champion:
        reasons += _champion_saw_holdout(champion, holdout["date"].min())
    for reason in reasons:
        log.info("%s", reason)
    log.info("decision: %s", decision)

    folder = storage.artifact_path("evaluations", f"{run.partition}", candidate.fingerprint)
    scored = pl.DataFrame({"target": target, "prediction": prediction})
    storage.write_parquet(folder / "predictions.parquet", scored)
    importance = feature_importance(model, holdout)
    storage.write_text(folder / "importance.json", json.dumps(importance, indent=1))
    reference = storage.read_parquet(candidate.reference_uri)
    drift = drift_table(reference, holdout, list(FEATURES), load_settings().monitoring.max_psi)
    storage.write_text(
        folder / "drift.json", json.dumps([row.model_dump(mode="json") for row in drift])
    )
    tracking.log_metrics(
        candidate.tracking_run_id, {f"holdout_{key}": value for key, value in metrics.items()}
    )
    tracking.log_metrics(
        run.tracking_run_id,
        {f"holdout_{key}": value for key, value in metrics.items()}
        | {f"champion_{key}": value for key, value in champion_metrics.items()},
    )
    return EvaluationRef(
        uri=str(folder),
        candidate=candidate,
        metrics=metrics,
        champion_version=int(champion.version) if champion else None,
        champion_metrics=champion_metrics,
        decision=decision,
        reasons=tuple(reasons),
    )


def check_gates(
    metrics: dict[str, float], champion: dict[str, float], gates: Gates
) -> tuple[list[str], list[str]]:
    """Hold metrics against the absolute gates and the champion's metrics.

    Returns:
        The sentences of the gates that failed, and of all gates.

    Raises:
        BadInput: A gate names a metric that is not measured.
    """
    failed: list[str] = []
    passed: list[str] = []
    for name, gate in gates.metrics.items():
        if name not in metrics:
            raise BadInput(f"gates.metrics.{name}: no such metric; there are: {', '.join(metrics)}")
        value = metrics[name]
        if gate.min is not None:
            verdict = passed if value >= gate.min else failed
            verdict.append(f"{name} {value:.4f}, at least {gate.min:g} needed")
        if gate.max is not None:
            verdict = passed if value <= gate.max else failed
            verdict.append(f"{name} {value:.4f}, at most {gate.max:g} allowed")
    if champion:
        name = problem.metrics.PRIMARY
        gain = metrics[name] - champion[name]
        gain = gain if problem.metrics.GREATER_IS_BETTER else -gain
        verdict = passed if gain > gates.min_improvement else failed
        verdict.append(
            f"{name} {metrics[name]:.4f} against the champion's {champion[name]:.4f}: better by "
            f"{gain:.4f}, more than {gates.min_improvement:g} needed"
        )
    failed = [f"failed: {sentence}" for sentence in failed]
    return failed, failed + [f"passed: {sentence}" for sentence in passed]


def feature_importance(model: Any, holdout: pl.DataFrame) -> dict[str, float]:
    """Return each feature's permutation importance: the loss of score when it is shuffled.

    Measured on an even sample of the holdout rows, three shuffles a feature.
    Source: Breiman, Random Forests (2001), as implemented by scikit-learn.
    """
    from sklearn.inspection import permutation_importance

    sample = holdout.gather_every(holdout.height // IMPORTANCE_ROWS + 1)

    def scorer(fitted: Any, inputs: Any, target: Any) -> float:
        value = problem.metrics.score(target, problem.metrics.predict(fitted, inputs))
        sign = 1.0 if problem.metrics.GREATER_IS_BETTER else -1.0
        return sign * value[problem.metrics.PRIMARY]

    found = permutation_importance(
        model,
        sample.select(FEATURES).to_pandas(),
        sample["target"].to_numpy(),
        scoring=scorer,
        n_repeats=3,
        random_state=load_settings().training.seed,
    )
    means = zip(FEATURES, found.importances_mean, strict=True)
    return dict(sorted(((n, float(v)) for n, v in means), key=lambda item: -item[1]))


def _champion_saw_holdout(champion: ModelVersion, first_day: Any) -> list[str]:
    until = champion.tags.get("trained_until", "")
    if not until or date.fromisoformat(until) < first_day:
        return []
    return [f"note: the champion learned from days up to {until}, so the comparison favours it"]
