"""promote: carry out the decision: move the champion alias, or keep the champion and say why."""

from __future__ import annotations

from .. import alerts
from ..core import tracking
from ..core.logs import get_logger
from ..core.refs import EvaluationRef, PromotionRef, Run
from ..core.stage import stage

log = get_logger(__name__)


@stage
def promote(run: Run, evaluation: EvaluationRef) -> PromotionRef:
    """Make the challenger champion if its gates held, and tell the team.

    Promoting again changes nothing and sends nothing: an equal model has its version already.
    """
    current = tracking.version_of(tracking.CHAMPION)
    if evaluation.decision != "promote":
        log.info("kept the champion: %s", "; ".join(evaluation.reasons))
        previous = tracking.version_of(tracking.PREVIOUS)
        return PromotionRef(
            promoted=False,
            champion_version=int(current.version) if current else None,
            previous_version=int(previous.version) if previous else None,
            reasons=evaluation.reasons,
        )
    version = tracking.register(evaluation.candidate)
    moved = current is None or int(current.version) != version
    former = tracking.crown(version)
    if moved:
        was = f"version {former} was" if former else "the first one"
        log.info("version %d is the champion now, %s", version, was)
        alerts.send(
            alerts.Event(
                kind="champion_changed",
                pipeline=run.pipeline,
                stage="promote",
                partition=f"{run.partition}",
                run_key=run.key,
                summary=f"{evaluation.candidate.candidate} is champion now, as version {version}"
                f"; {was}",
                tracking_url=tracking.run_url(run.tracking_run_id),
                details={key: f"{value:.4f}" for key, value in evaluation.metrics.items()},
            )
        )
    return PromotionRef(
        promoted=True,
        champion_version=version,
        previous_version=former,
        reasons=evaluation.reasons,
    )
