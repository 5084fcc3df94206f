"""Workers on many machines: each runs flow runs of the pool, against one Prefect server.

On every machine, with the same .env: `python -m` this module. Its flow runs are separate processes,
so the candidates of one run share a machine, unless DASK_SCHEDULER_ADDRESS names a Dask cluster.
"""

from __future__ import annotations

import os

from prefect_dask.task_runners import DaskTaskRunner

from ...core.errors import SettingsError
from .. import servers
from .local import become_worker, configure_environment, wait_for_server


def require_server() -> str:
    """Return the server's address.

    Raises:
        SettingsError: It is not set.
    """
    configure_environment()
    address = os.environ.get("PREFECT_API_URL")
    if not address:
        raise SettingsError(
            "PREFECT_API_URL is not set: name the Prefect server that all workers share in .env, "
            "like http://prefect.example.com:4200/api"
        )
    return address


def dask(address: str) -> DaskTaskRunner:
    """Return what runs the tasks of a flow run on the Dask cluster of a scheduler."""
    return DaskTaskRunner(address=address)


def worker() -> None:
    """Become one worker of the pool, as soon as the server answers."""
    address = require_server()
    servers.refuse_unshared_state()
    wait_for_server(address)
    become_worker()


if __name__ == "__main__":
    worker()
