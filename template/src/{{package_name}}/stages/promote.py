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
    previous = tracking.promote(version)
    if current is None or int(current.version) != version:
        was = f"version {previous} was" if previous else "the first one"
        log.info("version %d is the champion now, %s", version, was)
        alerts.send(alerts.Event.of_new_champion(run, evaluation, version, previous))
    return PromotionRef(
        promoted=True,
        champion_version=version,
        previous_version=previous,
        verdict=evaluation.verdict,
    )


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
