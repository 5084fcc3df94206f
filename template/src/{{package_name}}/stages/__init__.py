"""The pipeline's verbs, one a file. No stage knows which engine calls it.

`run_stage` is the door for engines: name and references in as JSON, one reference out as JSON.
"""

from __future__ import annotations

from typing import Any

from ..alerts import Event, send
from ..core import optional
from ..core.errors import BadInput, StageTimeout
from ..core.refs import Run
from ..core.stage import on_timeout

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


def alert_timeout(run: Run, label: str, error: StageTimeout) -> None:
    """Tell the team of a stage that its time limit ends, from the process that ends with it."""
    send(
        Event.from_exception(
            error,
            pipeline=run.pipeline,
            stage=label,
            partition=run.partition,
            run_key=run.key,
        )
    )


on_timeout.append(alert_timeout)


def run_stage(name: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Run one stage by name and return its reference as JSON.

    Only the stage's own module is imported, so a task's process loads no more than it needs.

    Raises:
        BadInput: There is no stage of that name.
    """
    if name not in STAGES:
        raise BadInput(f"no stage '{name}'; there are: {', '.join(STAGES)}")
    function = getattr(optional.load(f"stages.{name}"), name)
    result: dict[str, Any] = function(*args, **kwargs).model_dump(mode="json")
    return result
