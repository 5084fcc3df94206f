"""What adapters ask of a run. Standard library only at import: adapters are parsed with it."""

from __future__ import annotations

import re


def key_of_run(pipeline: str, run_id: str) -> str:
    """Return the pipeline's name for an engine's run: unique, and fit for a file name."""
    return f"{pipeline}-" + re.sub(r"[^A-Za-z0-9.]+", "-", run_id).strip("-")


def timed_out(run_key: str) -> bool:
    """Return whether a stage of the run ended its own process at its time limit.

    Such a process has sent its alert before it ended: an engine that only sees the process gone
    need not tell it again.
    """
    from ..core.deadline import EXIT_CODE
    from ..core.records import read_records

    return any(record.exit_code == EXIT_CODE for record in read_records(run_key))


def arrived(wanted: str | None) -> str | None:
    """Return the day of a run, by default the newest; None until it is at the source."""
    from ..core.settings import load_settings
    from ..sources.files import list_partitions, newest_partition

    settings = load_settings()
    if not wanted:
        return f"{newest_partition(settings)}"
    return wanted if wanted in map(str, list_partitions(settings)) else None
