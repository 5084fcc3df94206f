"""Run a pipeline for some partitions, one after another, as `poe run` runs it for one.

No engine's own backfill does this: one wants a schedule, another a server, and they count by date.
"""

from __future__ import annotations

import subprocess
import sys

from ..core import optional
from ..core.errors import PipelineError
from ..core.settings import load_settings
from .servers import out


def backfill(pipeline: str, first: str, last: str) -> None:
    """Run a pipeline for each partition from the first to the last, both included.

    One that fails does not stop the others. Each runs in a separate process, as with `poe run`.

    Args:
        pipeline: training or inference.
        first: A partition, like 2026-02-01.
        last: The same one, or a later one.

    Raises:
        SystemExit: There is no such partition, or the runs of some failed.
    """
    try:
        partitions = load_settings().data.cadence.span(first, last)
    except PipelineError as error:
        raise SystemExit(f"error: {error}") from None
    if not partitions:
        raise SystemExit(f"error: {first} comes after {last}: name the earlier one first")
    [engine] = optional.folders("orchestration")
    local = f"{__package__}.{engine}.local"
    code = f"import sys; from {local} import run; run(*sys.argv[1:])"
    failed = []
    for number, partition in enumerate(partitions, 1):
        out.print(f"{pipeline} of {partition}, {number} of {len(partitions)}")
        one = subprocess.Popen([sys.executable, "-c", code, pipeline, partition])
        try:
            one.wait()
        except KeyboardInterrupt:
            # The run has also been interrupted, and closes itself.
            one.wait()
            raise SystemExit(f"ended in {partition}: begin there again") from None
        if one.returncode != 0:
            failed.append(partition)
    if failed:
        raise SystemExit(f"{len(failed)} of {len(partitions)} failed: {', '.join(failed)}")
    out.print(f"all {len(partitions)} ended well")
