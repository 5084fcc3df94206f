"""select: the best candidate becomes the challenger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core.errors import MissingUpstream
from ..core.logs import get_logger
from ..core.refs import CandidateRef, Run
from ..core.stage import stage
from ..interface import load_problem

log = get_logger(__name__)


@stage
def select(run: Run, candidates: Sequence[CandidateRef | dict[str, Any] | None]) -> CandidateRef:
    """Return the candidate with the best validation score; the first named wins a tie.

    Raises:
        MissingUpstream: No candidate, or one of them is missing.
    """
    refs = [CandidateRef.model_validate(item) for item in candidates if item is not None]
    if not refs or len(refs) < len(candidates):
        raise MissingUpstream("select", "candidate")
    choose = max if load_problem().metrics.GREATER_IS_BETTER else min
    best = choose(refs, key=lambda ref: ref.score)
    for ref in refs:
        log.info("%s %s %.4f", "→" if ref is best else " ", ref.candidate, ref.score)
    return best
