"""evaluate: the challenger against the gates and the champion, on rows neither was tuned on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl
from upath import UPath

from ..core import registry, storage, tracking
from ..core.errors import ChampionMoved, ChampionUnusable
from ..core.logs import get_logger
from ..core.outcomes import Decision, GateResult, Misfit, Note, Rival, Verdict
from ..core.records import Importance
from ..core.refs import CandidateRef, EvaluationRef, FeaturesRef, Run
from ..core.settings import Settings
from ..core.stage import stage
from ..core.stored_model import open_version
from ..interface import load_features, load_problem
from ..ml.drift import drift_table
from ..ml.estimators import dummy_like
from ..ml.gates import check_gates, improvement_over
from .ingest import wider_window_is_available
from .score import classes_of, predict_with

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

log = get_logger(__name__)

IMPORTANCE_ROWS = 1_000
# With this many rows, the standard error of a share is 0.16 at most: sqrt(0.25 / 10).
FEW_ROWS = 10


@dataclass(frozen=True)
class Present:
    """The champion, measured on the same rows as the challenger.

    Attributes:
        version: None where there is no champion.
        metrics: Empty where it cannot be measured.
        classes: Those that it predicts; empty for numbers, or if it cannot be measured.
        misfit: Why it cannot.
    """

    version: ModelVersion | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    classes: frozenset[str] = frozenset()
    misfit: Misfit | None = None

    @property
    def number(self) -> int | None:
        """The version's number."""
        return int(self.version.version) if self.version else None


@stage
def evaluate(run: Run, features: FeaturesRef, candidate: CandidateRef) -> EvaluationRef:
    """Measure the challenger and the champion on the held-out rows and decide by the gates.

    The decision is `promote` when every gate holds, `retrain` when one fails and a wider window
    of partitions is there to learn from, and `keep` otherwise. A champion that today's code
    cannot load or predict with is not compared: the absolute gates decide.
    """
    holdout = _read_holdout(features, load_features().names)
    folder = registry.download(candidate.model_uri)
    candidate = candidate.model_copy(update={"digest": registry.digest_of(folder)})
    model = registry.load_model(str(folder))
    predicted = _predict(model, holdout)
    metrics = _score(predicted)
    dummy = dummy_like(model, storage.read_parquet(candidate.reference_uri)["target"])
    baseline_metrics = _score(_predict(dummy, holdout))
    present = _measure_champion(features)
    evaluation = EvaluationRef(
        uri=storage.address_of(_write_evidence(run, candidate, model, holdout, predicted)),
        features=features,
        candidate=candidate,
        metrics=metrics,
        baseline_metrics=baseline_metrics,
        champion_version=present.number,
        champion_metrics=present.metrics,
        verdict=Verdict(decision="keep"),
    )
    verdict = _decide(run, evaluation, features, present)
    notes = (*verdict.notes, *_notes_on_classes(predicted, present))
    verdict = verdict.model_copy(update={"notes": notes})
    evaluation = evaluation.model_copy(update={"verdict": verdict})
    _say(evaluation.verdict)
    measured = {f"holdout_{key}": value for key, value in metrics.items()}
    tracking.log_metrics(candidate.tracking_run_id, measured)
    measured |= {f"baseline_{key}": value for key, value in baseline_metrics.items()}
    measured |= {f"champion_{key}": value for key, value in present.metrics.items()}
    tracking.log_metrics(run.tracking_run_id, measured)
    return evaluation


def evaluate_again(run: Run, evaluation: EvaluationRef) -> EvaluationRef:
    """Compare a challenger with the present champion, on the rows that it was evaluated on.

    Raises:
        ChampionMoved: It is no longer known which rows those were.
    """
    features = evaluation.features
    if features is None:
        raise ChampionMoved(
            "the champion has moved since the evaluation, which older code made without saying on "
            "which rows: run the training again"
        )
    present = _measure_champion(features)
    verdict = _decide(run, evaluation, features, present)
    # It is too late for a wider window.
    decision: Decision = "promote" if verdict.decision == "promote" else "keep"
    moved = Note(kind="champion_moved", version=present.number)
    of_classes = tuple(note for note in evaluation.verdict.notes if note.classes)
    notes = (moved, *verdict.notes, *of_classes)
    verdict = Verdict(decision=decision, gates=verdict.gates, notes=notes)
    _say(verdict)
    update = {
        "champion_version": present.number,
        "champion_metrics": present.metrics,
        "verdict": verdict,
    }
    return evaluation.model_copy(update=update)


def feature_importance(model: Any, holdout: pl.DataFrame, seed: int) -> dict[str, float]:
    """Return each feature's permutation importance: the loss of score when it is shuffled.

    Measured on an even sample of the holdout rows, three shuffles per feature.
    Source: Breiman, Random Forests (2001), as implemented by scikit-learn.
    """
    from sklearn.inspection import permutation_importance

    sample = holdout.gather_every(holdout.height // IMPORTANCE_ROWS + 1)

    metrics, features = load_problem().metrics, load_features().names

    def scorer(fitted: Any, inputs: Any, _: None) -> float:
        value = metrics.score(sample["target"], metrics.predict(fitted, inputs))
        return (1.0 if metrics.GREATER_IS_BETTER else -1.0) * value[metrics.PRIMARY]

    importance = permutation_importance(
        model,
        sample.select(features).to_pandas(),
        None,
        scoring=scorer,
        n_repeats=3,
        random_state=seed,
    )
    means = zip(features, importance.importances_mean.tolist(), strict=True)
    return dict(sorted(means, key=lambda item: -item[1]))


def _read_holdout(features: FeaturesRef, names: Iterable[str]) -> pl.DataFrame:
    """Return the target and those columns that the held-out rows have."""
    files = storage.read_manifest(features.holdout_uri or "")
    wanted = dict.fromkeys([*names, "target"])
    if not set(wanted) <= {*load_features().names, "target"}:
        there = storage.read_parquet(files[0].uri).columns
        wanted = dict.fromkeys(name for name in wanted if name in there)
    return storage.read_partitions(files, list(wanted))


def _measure_champion(features: FeaturesRef) -> Present:
    """Measure the champion with the features that it was trained on."""
    version = registry.version_of(registry.CHAMPION)
    if version is None:
        return Present()
    try:
        model = open_version(version, load_features().names)
        holdout = _read_holdout(features, model.inputs)
        predicted = predict_with(model, holdout)
        known = classes_of(predicted)
        if known and known.isdisjoint(holdout["target"].cast(pl.String)):
            detail = f"{', '.join(sorted(known))}, none of which came true"
            raise ChampionUnusable(model.version, Misfit(kind="other_target", detail=detail))
        with model.blamed():
            metrics = _score(holdout.select("target", *predicted))
        return Present(version, metrics, frozenset(known))
    except ChampionUnusable as error:
        return Present(version, misfit=error.misfit)


def _predict(model: Any, holdout: pl.DataFrame) -> pl.DataFrame:
    """Return the target of each holdout row and what the model predicts."""
    inputs = holdout.select(load_features().names).to_pandas()
    return holdout.select("target", *load_problem().metrics.predict(model, inputs))


def _score(predicted: pl.DataFrame) -> dict[str, float]:
    return load_problem().metrics.score(predicted["target"], predicted.drop("target"))


def _gain(
    other: dict[str, float], metrics: dict[str, float], against: Rival, least: float
) -> GateResult:
    problem = load_problem().metrics
    return improvement_over(
        other,
        metrics,
        against=against,
        metric=problem.PRIMARY,
        greater_is_better=problem.GREATER_IS_BETTER,
        least=least,
    )


def _decide(
    run: Run, evaluation: EvaluationRef, features: FeaturesRef, present: Present
) -> Verdict:
    """Return what follows from what was measured of the challenger and the champion."""
    candidate, limits = evaluation.candidate, run.settings.gates
    gates = check_gates(evaluation.metrics, limits)
    if (least := limits.min_above_baseline) is not None:
        gates += (_gain(evaluation.baseline_metrics, evaluation.metrics, "baseline", least),)
    if present.metrics:
        least = limits.min_improvement
        gates += (_gain(present.metrics, evaluation.metrics, "champion", least),)
    notes = _notes_on(present, features, run.settings)
    known = registry.find(candidate.fingerprint)
    if known and int(known.version) == present.number and not present.misfit:
        notes = (*notes, Note(kind="already_champion"))
        if not any(note.gate for note in notes):
            return Verdict(decision="keep", notes=notes)
    elif known and (at := known.tags.get(registry.WITHDRAWN_TAG)):
        withdrawn = Note(kind="withdrawn", version=int(known.version), at=at)
        return Verdict(decision="keep", notes=(withdrawn, *notes))
    if all(gate.passed for gate in gates):
        return Verdict(decision="promote", gates=gates, notes=notes)
    if features.window == "normal" and wider_window_is_available(run):
        wider = Note(kind="wider_window_available")
        return Verdict(decision="retrain", gates=gates, notes=(wider, *notes))
    return Verdict(decision="keep", gates=gates, notes=notes)


def _notes_on(present: Present, features: FeaturesRef, settings: Settings) -> tuple[Note, ...]:
    """Return what a reader should know about the champion."""
    champion, version = present.version, present.number
    if champion is None:
        return ()
    if present.misfit:
        misfit = present.misfit
        return (Note(kind="champion_not_comparable", version=version, misfit=misfit),)
    broken = [gate for gate in check_gates(present.metrics, settings.gates) if not gate.passed]
    notes = tuple(Note(kind="champion_breaks_gate", gate=gate) for gate in broken)
    until = champion.tags.get("trained_until")
    if champion.tags.get(registry.FEATURES_TAG) == features.fingerprint:
        return notes
    if until and features.holdout_from and until >= features.holdout_from:
        notes += (Note(kind="champion_saw_holdout", until=until),)
    elif settings.split in ("group", "time_and_group"):
        notes += (Note(kind="champion_may_know_groups", version=version),)
    return notes


def _notes_on_classes(predicted: pl.DataFrame, present: Present) -> tuple[Note, ...]:
    """Return the classes that the challenger did not learn, never predicts, or rarely met."""
    learned = classes_of(predicted)
    if not learned:
        return ()
    counts = predicted["target"].cast(pl.String).value_counts()
    held = dict.fromkeys(learned | present.classes, 0) | dict(counts.iter_rows())
    rows = dict(sorted(held.items(), key=lambda one: (one[1], one[0])))
    unknown = {name: count for name, count in rows.items() if name not in learned}
    few = {name: count for name, count in rows.items() if name in learned and count < FEW_ROWS}
    predictions = set(predicted["prediction"].cast(pl.String))
    never = {name: n for name, n in rows.items() if name not in {*unknown, *few, *predictions}}
    notes = {
        "classes_not_learned": unknown,
        "classes_never_predicted": never,
        "few_rows_of_classes": few,
    }
    return tuple(
        Note.model_validate({"kind": kind, "classes": found})
        for kind, found in notes.items()
        if found
    )


def _say(verdict: Verdict) -> None:
    for reason in verdict.reasons:
        log.info("%s", reason)
    log.info("decision: %s", verdict.decision)


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
    drift = drift_table(reference, holdout, list(load_features().names), limit)
    storage.write_model(folder / "drift.json", drift)
    return folder
