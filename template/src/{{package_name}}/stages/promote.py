"""promote: carry out the decision: move the champion alias, or keep the champion and say why."""

from __future__ import annotations

from .. import alerts
from ..core import tracking
from ..core.logs import get_logger
from ..core.outcomes import Verdict
from ..core.refs import EvaluationRef, PromotionRef, Run
from ..core.stage import stage

log = get_logger(__name__)


@stage
def promote(run: Run, evaluation: EvaluationRef) -> PromotionRef:
    """Make the challenger champion if its gates held, and tell the team.

    Promoting again changes nothing and sends nothing: an identical model is already registered.
    """
    if evaluation.verdict.decision != "promote":
        return _keep_champion(evaluation.verdict)
    current = tracking.version_of(tracking.CHAMPION)
    version = tracking.register(evaluation.candidate)
    promotion = PromotionRef(
        promoted=True,
        champion_version=version,
        previous_version=tracking.promote(version),
        verdict=evaluation.verdict,
    )
    if current is None or int(current.version) != version:
        log.info("%s", promotion.sentence)
        alerts.send(alerts.Event.of_new_champion(run, evaluation, promotion))
    return promotion


def _keep_champion(verdict: Verdict) -> PromotionRef:
    log.info("kept the champion: %s", "; ".join(map(str, verdict.reasons)))
    champion, previous = (
        tracking.version_of(alias) for alias in (tracking.CHAMPION, tracking.PREVIOUS)
    )
    return PromotionRef(
        promoted=False,
        champion_version=int(champion.version) if champion else None,
        previous_version=int(previous.version) if previous else None,
        verdict=verdict,
    )
