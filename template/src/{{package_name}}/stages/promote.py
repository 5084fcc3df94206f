"""promote: carry out the decision: move the champion alias, or keep the champion and say why."""

from __future__ import annotations

from .. import alerts
from ..core import registry
from ..core.logs import get_logger
from ..core.refs import EvaluationRef, PromotionRef, Run
from ..core.stage import stage

log = get_logger(__name__)


@stage
def promote(run: Run, evaluation: EvaluationRef) -> PromotionRef:
    """Make the challenger champion if its gates held, and tell the team.

    Promoting again changes nothing and sends nothing: an identical model is already registered.
    """
    verdict = evaluation.verdict
    promoted = verdict.decision == "promote"
    champion, previous = registry.versions()
    before = champion
    if promoted:
        champion = registry.register(evaluation.candidate)
        previous = registry.promote(champion)
    promotion = PromotionRef(
        promoted=promoted,
        champion_version=champion,
        previous_version=previous,
        verdict=verdict,
    )
    log.info("%s: %s", promotion.sentence, "; ".join(map(str, verdict.reasons)))
    if promoted and champion != before:
        alerts.send(alerts.Event.of_new_champion(run, evaluation, promotion))
    return promotion
