"""Faults that a test puts into a project, in the file that is the team's own: its candidates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .projects import Project

WRAPPED = """

# --- a fault, for a test ---
import pathlib as _pathlib
import time as _time

_sound = CANDIDATES["{candidate}"]


def _faulty(trial, seed):
    seen = _pathlib.Path(r"{seen}")
    first = not seen.exists()
    seen.touch()
    {fault}
    return _sound(trial, seed)


CANDIDATES["{candidate}"] = _faulty
"""
HANGS = "_time.sleep(3600)"
FAILS_ONCE = 'if first: raise ConnectionError("the feature store is away for a moment")'
FAILS = 'raise ConnectionError("the feature store is gone")'


@contextmanager
def fault(project: Project, candidate: str, what: str) -> Iterator[None]:
    """Give a candidate a fault for as long as the block runs; processes started before keep theirs.

    Args:
        project: The project whose `domain/` is changed.
        candidate: Which candidate is built by faulty code.
        what: One statement, like `HANGS`; `first` in it is true the first time it runs.
    """
    domain = project.path / "src" / project.package / "domain"
    file = domain / "problem.py"
    sound = file.read_text()
    seen = project.path.parent / f"{project.path.name}-{candidate}-was-built"
    seen.unlink(missing_ok=True)
    file.write_text(sound + WRAPPED.format(candidate=candidate, seen=seen, fault=what))
    try:
        yield
    finally:
        file.write_text(sound)
        seen.unlink(missing_ok=True)
