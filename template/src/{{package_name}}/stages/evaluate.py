"""evaluate: the challenger against the gates and the champion, on days neither was tuned on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import polars as pl
from upath import UPath

from ..core import storage, tracking
from ..core.logs import get_logger
from ..core.outcomes import GateResult, Note, Verdict
from ..core.records import Importance
from ..core.refs import CandidateRef, EvaluationRef, FeaturesRef, Run
from ..core.stage import stage
from ..domain import problem
from ..domain.features import FEATURES
from ..ml.drift import DriftTable, drift_table
from ..ml.gates import check_gates, improvement_over
from .ingest import wider_window_is_available

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

log = get_logger(__name__)

IMPORTANCE_ROWS = 1_000


@dataclass(frozen=True)
class _Measured:
    """A model and what it predicts for the holdout rows."""

    model: Any
    prediction: Any
    metrics: dict[str, float]


@stage
def evaluate(run: Run, features: FeaturesRef, candidate: CandidateRef) -> EvaluationRef:
    """Measure the challenger and the champion on the holdout days and decide by the gates.

    The decision is `promote` when every gate holds, `retrain` when one fails and a wider window
    of partitions is there to learn from, and `keep` otherwise.
    """
    holdout = _read_holdout(features)
    challenger = _measure(candidate.model_uri, holdout)
    champion = tracking.version_of(tracking.CHAMPION)
    champion_metrics = _measure_champion(champion, holdout)
    gates = check_gates(challenger.metrics, run.settings.gates)
    if champion_metrics:
        gates += (_improvement(run, challenger.metrics, champion_metrics),)
    verdict = _decide(run, features, candidate, champion, gates)
    for reason in verdict.reasons:
        log.info("%s", reason)
    log.info("decision: %s", verdict.decision)
    _log_metrics(run, candidate, challenger.metrics, champion_metrics)
    return EvaluationRef(
        uri=str(_write_evidence(run, candidate, challenger, holdout)),
        candidate=candidate,
        metrics=challenger.metrics,
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
    means = zip(FEATURES, importance.importances_mean, strict=True)
    return dict(sorted(((n, float(v)) for n, v in means), key=lambda item: -item[1]))


def _read_holdout(features: FeaturesRef) -> pl.DataFrame:
    files = [
        file
        for file in storage.read_manifest(features.uri)
        if features.holdout_from and file.partition >= features.holdout_from
    ]
    return storage.read_partitions(files, [*FEATURES, "target"])


def _measure(model_uri: str, holdout: pl.DataFrame) -> _Measured:
    model = tracking.load_model(model_uri)
    prediction = problem.metrics.predict(model, holdout.select(FEATURES).to_pandas())
    metrics = problem.metrics.score(holdout["target"].to_numpy(), prediction)
    return _Measured(model, prediction, metrics)


def _measure_champion(champion: ModelVersion | None, holdout: pl.DataFrame) -> dict[str, float]:
    if champion is None:
        return {}
    return _measure(f"models:/{champion.name}/{champion.version}", holdout).metrics


def _improvement(run: Run, challenger: dict[str, float], champion: dict[str, float]) -> GateResult:
    return improvement_over(
        champion,
        challenger,
        metric=problem.metrics.PRIMARY,
        greater_is_better=problem.metrics.GREATER_IS_BETTER,
        least=run.settings.gates.min_improvement,
    )


def _decide(
    run: Run,
    features: FeaturesRef,
    candidate: CandidateRef,
    champion: ModelVersion | None,
    gates: tuple[GateResult, ...],
) -> Verdict:
    if champion and champion.tags.get(tracking.FINGERPRINT_TAG) == candidate.fingerprint:
        return Verdict(decision="keep", notes=(Note(kind="already_champion"),))
    notes = _notes_of_comparison(champion, features.holdout_from)
    if all(gate.passed for gate in gates):
        return Verdict(decision="promote", gates=gates, notes=notes)
    if features.window == "normal" and wider_window_is_available(run):
        wider = Note(kind="wider_window_available")
        return Verdict(decision="retrain", gates=gates, notes=(wider, *notes))
    return Verdict(decision="keep", gates=gates, notes=notes)


def _notes_of_comparison(
    champion: ModelVersion | None, holdout_from: date | None
) -> tuple[Note, ...]:
    until = champion.tags.get("trained_until", "") if champion else ""
    if not until or holdout_from is None or date.fromisoformat(until) < holdout_from:
        return ()
    return (Note(kind="champion_saw_holdout", until=date.fromisoformat(until)),)


def _write_evidence(
    run: Run, candidate: CandidateRef, challenger: _Measured, holdout: pl.DataFrame
) -> UPath:
    """Write what the report shows of the challenger, and return the folder."""
    folder = storage.artifact_path("evaluations", f"{run.partition}", candidate.fingerprint)
    scored = holdout.select("target", pl.Series("prediction", challenger.prediction))
    storage.write_parquet(folder / "predictions.parquet", scored)
    importance = feature_importance(challenger.model, holdout, run.settings.training.seed)
    storage.write_model(folder / "importance.json", Importance(features=importance))
    reference = storage.read_parquet(candidate.reference_uri)
    drift = drift_table(reference, holdout, list(FEATURES), run.settings.monitoring.max_psi)
    storage.write_model(folder / "drift.json", DriftTable(features=tuple(drift)))
    return folder


def _log_metrics(
    run: Run, candidate: CandidateRef, challenger: dict[str, float], champion: dict[str, float]
) -> None:
    holdout = {f"holdout_{key}": value for key, value in challenger.items()}
    tracking.log_metrics(candidate.tracking_run_id, holdout)
    tracking.log_metrics(
        run.tracking_run_id, holdout | {f"champion_{key}": value for key, value in champion.items()}
    )
