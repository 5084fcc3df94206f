"""What runs the steps: processes of this machine, or Celery's workers."""

import dagster as dg

from ..core import optional
from ..core.settings import load_settings

# Loaded once for all steps of a run, whose processes are forked from the one that did: what stages
# and Dagster itself import at their first use.
PACKAGE = __package__.partition(".")[0]
PRELOADED = [
    f"{PACKAGE}.definitions",
    f"{PACKAGE}.orchestration.libraries",
    "alembic.command",
    "dagster._core.storage.base_storage",
]


def executor() -> dg.ExecutorDefinition:
    """Return what runs the steps, as [workers] says."""
    if load_settings().workers.distributed:
        distributed: dg.ExecutorDefinition = optional.load("defs.celery_executor").executor()
        return distributed
    return dg.multiprocess_executor.configured(
        {"max_concurrent": 4, "start_method": {"forkserver": {"preload_modules": PRELOADED}}}
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Return the executor of all jobs."""
    return dg.Definitions(executor=executor())
