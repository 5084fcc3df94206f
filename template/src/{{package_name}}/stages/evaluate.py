"""evaluate: the challenger against the gates and the champion, on days neither was tuned on."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

import polars as pl
from upath import UPath

from ..core import registry, storage, tracking
from ..core.logs import get_logger
from ..core.outcomes import GateResult, Note, Verdict
from ..core.records import Importance
from ..core.refs import CandidateRef, EvaluationRef, FeaturesRef, Run
from ..core.stage import stage
from ..domain import problem
from ..domain.features import FEATURES
from ..ml.drift import drift_table
from ..ml.gates import check_gates, improvement_over
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
    holdout = _read_holdout(features)
    model = registry.load_model(candidate.model_uri)
    predicted = _predict(model, holdout)
    metrics = _score(predicted)
    gates = check_gates(metrics, run.settings.gates)
    champion = registry.version_of(registry.CHAMPION)
    champion_metrics: dict[str, float] = {}
    if champion:
        present = registry.load_model(f"models:/{champion.name}/{champion.version}")
        champion_metrics = _score(_predict(present, holdout))
        gates += (
            improvement_over(
                champion_metrics,
                metrics,
                metric=problem.metrics.PRIMARY,
                greater_is_better=problem.metrics.GREATER_IS_BETTER,
                least=run.settings.gates.min_improvement,
            ),
        )
    verdict = _decide(run, features, candidate, champion, gates)
    for reason in verdict.reasons:
        log.info("%s", reason)
    log.info("decision: %s", verdict.decision)
    measured = {f"holdout_{key}": value for key, value in metrics.items()}
    tracking.log_metrics(candidate.tracking_run_id, measured)
    measured |= {f"champion_{key}": value for key, value in champion_metrics.items()}
    tracking.log_metrics(run.tracking_run_id, measured)
    return EvaluationRef(
        uri=str(_write_evidence(run, candidate, model, holdout, predicted)),
        candidate=candidate,
        metrics=metrics,
        champion_version=int(champion.version) if champion else None,
        champion_metrics=champion_metrics,
        verdict=verdict,
    )


def feature_importance(model: Any, holdout: pl.DataFrame, seed: int) -> dict[str, float]:
    """Return each feature's permutation importance: the loss of score when it is shuffled.

    Measured on an even sample of the holdout rows, three shuffles per feature.
    Source: Breiman, Random Forests (2001), as implemented by scikit-learn.
    """
    from sklearn.inspection import permutation_importance

    sample = holdout.gather_every(holdout.height // IMPORTANCE_ROWS + 1)

    def scorer(fitted: Any, inputs: Any, target: Any) -> float:
        value = problem.metrics.score(target, problem.metrics.predict(fitted, inputs))
        sign = 1.0 if problem.metrics.GREATER_IS_BETTER else -1.0
        return sign * value[problem.metrics.PRIMARY]

    importance = permutation_importance(
        model,
        sample.select(FEATURES).to_pandas(),
        sample["target"].to_numpy(),
        scoring=scorer,
        n_repeats=3,
        random_state=seed,
    )
    means = zip(FEATURES, importance.importances_mean.tolist(), strict=True)
    return dict(sorted(means, key=lambda item: -item[1]))


def _read_holdout(features: FeaturesRef) -> pl.DataFrame:
    files = [
        file
        for file in storage.read_manifest(features.uri)
        if features.holdout_from and file.partition >= features.holdout_from
    ]
    return storage.read_partitions(files, [*FEATURES, "target"])


def _predict(model: Any, holdout: pl.DataFrame) -> pl.DataFrame:
    """Return the target of each holdout row and what the model predicts."""
    prediction = problem.metrics.predict(model, holdout.select(FEATURES).to_pandas())
    return holdout.select("target", pl.Series("prediction", prediction))


def _score(predicted: pl.DataFrame) -> dict[str, float]:
    return problem.metrics.score(predicted["target"].to_numpy(), predicted["prediction"].to_numpy())


def _decide(
    run: Run,
    features: FeaturesRef,
    candidate: CandidateRef,
    champion: ModelVersion | None,
    gates: tuple[GateResult, ...],
) -> Verdict:
    if champion and champion.tags.get(registry.FINGERPRINT_TAG) == candidate.fingerprint:
        return Verdict(decision="keep", notes=(Note(kind="already_champion"),))
    notes: tuple[Note, ...] = ()
    until = champion.tags.get("trained_until") if champion else None
    if until and features.holdout_from and date.fromisoformat(until) >= features.holdout_from:
        notes = (Note(kind="champion_saw_holdout", until=date.fromisoformat(until)),)
    if all(gate.passed for gate in gates):
        return Verdict(decision="promote", gates=gates, notes=notes)
    if features.window == "normal" and wider_window_is_available(run):
        wider = Note(kind="wider_window_available")
        return Verdict(decision="retrain", gates=gates, notes=(wider, *notes))
    return Verdict(decision="keep", gates=gates, notes=notes)


def _write_evidence(
    run: Run, candidate: CandidateRef, model: Any, holdout: pl.DataFrame, predicted: pl.DataFrame
) -> UPath:
    """Write what the report shows of the challenger, and return the folder."""
    folder = storage.artifact_path("evaluations", f"{run.partition}", candidate.fingerprint)
    storage.write_parquet(folder / "predictions.parquet", predicted)
    importance = feature_importance(model, holdout, run.settings.training.seed)
    storage.write_model(folder / "importance.json", Importance(features=importance))
    reference = storage.read_parquet(candidate.reference_uri)
    limit = run.settings.monitoring.max_psi
    drift = drift_table(reference, holdout, list(FEATURES), limit)
    storage.write_model(folder / "drift.json", drift)
    return folder
