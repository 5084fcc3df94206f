"""A run on this machine as a person sees it: a line per stage, its result, and what to do next.

What an engine prints goes to a file.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from ..core.logs import console
from ..core.paths import project_root
from ..core.records import read_records
from ..reporting.progress import StageProgress
from ..reporting.terminal import print_result
from .runs import key_of_run
from .servers import log_file, out

LOGS_KEPT = 20
_LAST_LINES = 15


@contextmanager
def attended(pipeline: str, engine: str, *, verbose: bool) -> Iterator[Path | None]:
    """Show a line per stage while the body runs a pipeline, and keep what is printed in a file.

    A failed try is repeated at once: somebody is waiting, and sees what is wrong.

    Args:
        pipeline: Its name.
        engine: Its name for people.
        verbose: Whether all goes to the terminal as well as the lines; then there is no file.

    Yields:
        The file; None where there is none.
    """
    os.environ.setdefault("PIPELINE_LIMITS__RETRY_DELAY_SECONDS", "0")
    if verbose:
        with StageProgress(out, lines=True):
            yield None
        return
    log = _new_log(pipeline)
    out.print(f"{pipeline} on {engine}; all it prints: {_short(log)}", soft_wrap=True)
    with log.open("ab") as file, _printed_to(file.fileno()), StageProgress(out, lines=True):
        yield log


def conclude(pipeline: str, run_id: str, failure: str | None, log: Path | None = None) -> None:
    """Show the result of a run, and end with 1 where it failed or did nothing.

    Args:
        pipeline: Its name.
        run_id: The engine's name of the run.
        failure: Why it failed, as far as the engine knows.
        log: What the engine printed, see `attended`.

    Raises:
        SystemExit: It failed, or none of its stages left a record.
    """
    key = key_of_run(pipeline, run_id)
    records = read_records(key)
    if failure is None and not records:
        failure = (
            f"the {pipeline} run ended without a single stage: the engine found no task to start; "
            "look at the dates and conditions of its graph"
        )
    explained = any(record.error for record in records)
    if failure and log and not explained:
        print_last_lines(log)
    print_result(out, key)
    if failure:
        raise SystemExit(f"{failure}; all it printed: {_short(log)}" if log else failure)


def print_last_lines(log: Path) -> None:
    """Show the last lines that an engine printed."""
    lines = log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
    out.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _new_log(pipeline: str) -> Path:
    """Return a file for a run, and remove those of the oldest runs."""
    log = log_file(f"{pipeline}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}")
    for old in sorted(log.parent.glob(f"{pipeline}-*T*-*.log"))[: 1 - LOGS_KEPT]:
        old.unlink(missing_ok=True)
    log.touch()
    return log


@contextmanager
def _printed_to(file: int) -> Iterator[None]:
    """Have this process and its children print to a file, but for both consoles."""
    terminals = [os.dup(stream) for stream in (1, 2)]
    streams = [os.fdopen(one, "w", buffering=1, errors="replace") for one in terminals]
    consoles: list[Console] = [out, console()]
    _flush()
    try:
        for one, stream in zip(consoles, streams, strict=True):
            one.file = stream
        for number in (1, 2):
            os.dup2(file, number)
        yield
    finally:
        _flush()
        for number, terminal in zip((1, 2), terminals, strict=True):
            os.dup2(terminal, number)
        for one, stream in zip(consoles, streams, strict=True):
            # Python's own again, as by default.
            one.file = None  # type: ignore[assignment]
            stream.close()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError):
            stream.flush()


def _short(path: Path) -> Path:
    return path.relative_to(project_root())
