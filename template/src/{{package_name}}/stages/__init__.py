"""The pipeline's verbs, one per file. No stage knows which engine calls it.

`run_stage` is the door for engines: name and references in as JSON, one reference out as JSON.
"""

from __future__ import annotations

from typing import Any

from ..core import optional
from ..core.errors import BadInput

STAGES = (
    "start",
    "ingest",
    "validate",
    "featurize",
    "train",
    "select",
    "evaluate",
    "promote",
    "score",
    "monitor",
    "report",
)


def run_stage(name: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Run one stage by name and return its reference as JSON.

    Only the stage's own module is imported, so a task's process loads no more than it needs.

    Raises:
        BadInput: There is no stage of that name.
    """
    if name not in STAGES:
        raise BadInput(f"no stage '{name}'; there are: {', '.join(STAGES)}")
    from .. import alerts
    from ..core.stage import on_timeout

    on_timeout.add(alerts.send_failure_of)
    function = getattr(optional.load(f"stages.{name}"), name)
    result: dict[str, Any] = function(*args, **kwargs).model_dump(mode="json")
    return result
