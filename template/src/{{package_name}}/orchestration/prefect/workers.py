"""Workers on many machines: each runs flow runs of the pool, against one Prefect server.

On every machine, with the same .env: `python -m` this module. Its flow runs are separate processes,
so the candidates of one run share a machine, unless DASK_SCHEDULER_ADDRESS names a Dask cluster.
"""

from __future__ import annotations

import os

from prefect_dask.task_runners import DaskTaskRunner

from .. import servers
from .local import become_worker, configure_environment


def dask(address: str) -> DaskTaskRunner:
    """Return what runs the tasks of a flow run on the Dask cluster of a scheduler."""
    return DaskTaskRunner(address=address)


def worker() -> None:
    """Become one worker of the pool, as soon as the server answers."""
    configure_environment()
    servers.refuse_unshared_state(["PREFECT_API_URL"])
    servers.wait_until_ready(f"{os.environ['PREFECT_API_URL']}/health")
    become_worker()


if __name__ == "__main__":
    worker()
