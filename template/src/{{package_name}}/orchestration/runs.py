"""What adapters ask of a run. Standard library only at import: adapters are parsed with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


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


def reasons_of(reference: Mapping[str, Any]) -> list[str]:
    """Return why an evaluation or monitoring decided as it did, in sentences for people.

    Args:
        reference: What the evaluate, promote or monitor stage returned, as JSON.
    """
    from ..core.outcomes import Verdict
    from ..core.refs import MonitorRef

    if "verdict" in reference:
        return [f"{reason}" for reason in Verdict.model_validate(reference["verdict"]).reasons]
    return [f"{reason}" for reason in MonitorRef.model_validate(reference).reasons]
