"""One of the team's own steps, from domain/steps.py, wrapped as a stage like all others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from ..core.errors import BadInput, DomainError
from ..core.outcomes import STAGES
from ..core.refs import DatasetRef, PromotionRef, Ref, Run, ScoresRef, StepRef
from ..core.stage import stage
from ..interface import load_steps

# What the steps after a stage are given: the stage's own reference.
GIVEN: dict[str, type[Ref]] = {"validate": DatasetRef, "promote": PromotionRef, "score": ScoresRef}


def own_step(name: str) -> Callable[..., StepRef]:
    """Return a step of domain/steps.py as a stage that has the function's name.

    Raises:
        BadInput: No step has that name.
    """
    steps = load_steps()
    found = [(after, steps.after(after)[name]) for after in GIVEN if name in steps.after(after)]
    if not found:
        own = [step for after in GIVEN for step in steps.after(after)]
        raise BadInput(f"no stage '{name}'; there are: {', '.join([*STAGES, *own])}")
    [(after, function)] = found

    def step(run: Run, upstream: Any) -> StepRef:
        return _as_reference(name, function(run, upstream))

    step.__name__ = name
    step.__annotations__ = {"run": Run, "upstream": GIVEN[after], "return": StepRef}
    return stage(step)


def _as_reference(name: str, returned: object) -> StepRef:
    try:
        return StepRef(result={} if returned is None else to_jsonable_python(returned))
    except (PydanticSerializationError, ValidationError):
        raise DomainError(
            f"domain/steps.py: {name}() returned a {type(returned).__name__}; a step returns "
            "nothing, or a dict or pydantic model of numbers and texts"
        ) from None
