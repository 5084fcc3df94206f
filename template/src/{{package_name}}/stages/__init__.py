"""The pipeline's verbs, one per file, and the team's own. No stage knows which engine calls it.

`run_stage` is the door for engines: name and references in as JSON, one reference out as JSON.
"""

from __future__ import annotations

from typing import Any

from ..core import optional
from ..core.outcomes import STAGES

__all__ = ["STAGES", "run_stage"]


def run_stage(name: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Run one stage, or step of domain/steps.py, by name and return its reference as JSON.

    Only the stage's own module is imported, so a task's process loads only what it needs.

    Raises:
        BadInput: No stage or step has that name.
    """
    from .. import alerts
    from ..core.stage import on_timeout

    on_timeout.add(alerts.send_failure_of)
    if name in STAGES:
        function = getattr(optional.load(f"stages.{name}"), name)
    else:
        function = optional.load("stages.own_step").own_step(name)
    result: dict[str, Any] = function(*args, **kwargs).model_dump(mode="json")
    return result
