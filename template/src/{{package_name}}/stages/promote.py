"""promote: carry out the decision: move the champion alias, or keep the champion and say why."""

from __future__ import annotations

from .. import alerts
from ..core import registry
from ..core.errors import ChampionMoved
from ..core.logs import get_logger
from ..core.outcomes import Note, Verdict
from ..core.refs import EvaluationRef, PromotionRef, Run
from ..core.stage import stage

log = get_logger(__name__)

# How often the champion may change while the challenger is compared with it.
TRIES = 5


@stage
def promote(run: Run, evaluation: EvaluationRef) -> PromotionRef:
    """Make the challenger champion if its gates held, and tell the team.

    If another run or a person has changed the champion since the evaluation, the challenger is
    evaluated again, against the present one. A version that a person took back stays back. The team
    also gets an alert about a champion that stays and breaks a gate, or cannot predict.

    Promoting again changes nothing, and sends only what an earlier try did not get to send.

    Raises:
        ChampionMoved: It moves again and again, or has moved since older code evaluated.
    """
    moved = False
    for _ in range(TRIES):
        evaluation = _hold_against_present(run, evaluation)
        if evaluation.verdict.decision != "promote":
            break
        version = registry.register(evaluation.candidate, _unusable(evaluation))
        try:
            moved = registry.succeed(version, evaluation.champion_version, run.key)
            break
        except ChampionMoved as error:
            log.warning("%s", error)
    else:
        raise ChampionMoved(f"the champion moved {TRIES} times while this run looked at it")
    champion, previous = registry.versions()
    promotion = PromotionRef(
        promoted=evaluation.verdict.decision == "promote",
        champion_version=champion,
        previous_version=previous,
        verdict=evaluation.verdict,
    )
    log.info("%s: %s", promotion.sentence, "; ".join(map(str, promotion.verdict.reasons)))
    _tell(run, evaluation, promotion, moved)
    return promotion


def _hold_against_present(run: Run, evaluation: EvaluationRef) -> EvaluationRef:
    """Return the evaluation, made again where it is out of date."""
    champion, _ = registry.versions()
    known = registry.find(evaluation.candidate.fingerprint)
    version = int(known.version) if known else None
    if known and version != _unusable(evaluation) and evaluation.verdict.decision == "promote":
        if version == champion:
            # An earlier try of this very call has come that far.
            return evaluation
        if at := known.tags.get(registry.WITHDRAWN_TAG):
            note = Note(kind="withdrawn", version=version, at=at)
            kept = Verdict(decision="keep", notes=(note, *evaluation.verdict.notes))
            return evaluation.model_copy(update={"verdict": kept})
    if champion == evaluation.champion_version:
        return evaluation
    from .evaluate import evaluate_again

    return evaluate_again(run, evaluation)


def _unusable(evaluation: EvaluationRef) -> int | None:
    """Return the champion's version if it cannot be compared."""
    misfit = any(note.misfit for note in evaluation.verdict.notes)
    return evaluation.champion_version if misfit else None


def _tell(run: Run, evaluation: EvaluationRef, promotion: PromotionRef, moved: bool) -> None:
    """Announce a new champion to the team, also one that a killed run did not get to announce."""
    if champion := registry.unannounced():
        alerts.send(
            alerts.Event.of_new_champion(
                run,
                promotion.model_copy(update={"promoted": True}),
                candidate=champion.tags.get("candidate", ""),
                metrics=evaluation.metrics if promotion.promoted else evaluation.champion_metrics,
                repeated=not moved,
            )
        )
        registry.set_announced(champion)
        return
    notes = promotion.verdict.notes
    if not promotion.promoted and any(note.gate or note.misfit for note in notes):
        alerts.send(alerts.Event.of_failing_champion(run, promotion))
