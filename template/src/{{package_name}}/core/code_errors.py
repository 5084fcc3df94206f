"""Mistakes in code, which no retry cures, and where in the project's files they are."""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from .errors import CodeError, PipelineError
from .optional import PACKAGE
from .paths import project_root

# What Python raises on a mistake in code, or on values that code did not expect.
_MISTAKES = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError),
    *(NotImplementedError, SyntaxError, TypeError, ValueError),
)
# Reading from a store also raises these.
_OF_STORES = ("ComputeError", "PanicException")
_CODE_LINES = 3


class Place(NamedTuple):
    """Where in the project's files an error was raised.

    Attributes:
        location: File from the project's root, line and function.
        code: The lines up to it.
    """

    location: str
    code: str


@contextmanager
def mistakes_named() -> Iterator[None]:
    """Raise a mistake in code as an error that no engine retries.

    Raises:
        CodeError: Names the mistake and where it was made; the mistake is its cause.
    """
    try:
        yield
    except Exception as error:
        if is_mistake(error):
            # For a query, polars also prints the plan.
            first = f"{error}".strip().partition("\n")[0]
            raise CodeError(f"{type(error).__name__}: {first}{at_place(error)}") from error
        raise


def is_mistake(error: BaseException) -> bool:
    """Return whether an error is one in code, and not of a connection, a file or a lock."""
    if isinstance(error, PipelineError):
        return False
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return False
        cause = cause.__cause__ or cause.__context__
    of_polars = type(error).__module__.startswith("polars")
    return isinstance(error, _MISTAKES) or (of_polars and type(error).__name__ not in _OF_STORES)


def at_place(error: BaseException) -> str:
    """Return where an error was raised, in brackets, to follow its message; empty if unknown."""
    place = place_of(error)
    return f" ({place.location})" if place else ""


def place_of(error: BaseException) -> Place | None:
    """Return the innermost line of domain/ that led to an error, or else of the project's code."""
    ours, of_team = [], []
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = frame.f_globals.get("__name__", "")
        if ".domain." in module:
            of_team.append((frame.f_code, line))
        elif module.startswith(f"{PACKAGE}."):
            ours.append((frame.f_code, line))
    if not (of_team or ours):
        return None
    code, line = (of_team or ours)[-1]
    path = Path(code.co_filename)
    shown = path.relative_to(project_root()) if path.is_relative_to(project_root()) else path
    numbers = range(max(1, line - _CODE_LINES + 1), line + 1)
    text = "\n".join(f"{n:>4}  {linecache.getline(f'{path}', n).rstrip()}" for n in numbers)
    return Place(f"{shown}:{line} in {code.co_name}", text)
