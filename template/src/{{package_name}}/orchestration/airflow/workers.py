"""A Celery worker of Airflow on this machine; `uv run poe worker` on each machine that works."""

from __future__ import annotations

import os
import socket
import subprocess

from .. import servers
from ..servers import Server
from .local import configure_environment

# What the scheduler's machine and every worker must have in common.
REQUIRED = (
    "AIRFLOW__CELERY__BROKER_URL",
    "AIRFLOW__CELERY__RESULT_BACKEND",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    "AIRFLOW__API_AUTH__JWT_SECRET",
)


def services(health: str, port_variable: str) -> list[Server]:
    """Return Airflow's services that `airflow standalone` would start, and migrate its database."""
    subprocess.run(["airflow", "db", "migrate"], check=True)
    others = ("scheduler", "dag-processor", "triggerer")
    return [
        Server("airflow-api-server", ["airflow", "api-server"], health, port_variable),
        *(Server(f"airflow-{name}", ["airflow", name]) for name in others),
    ]


def worker() -> None:
    """Work on tasks until Ctrl-C; becomes the Celery worker.

    Raises:
        SystemExit: A variable of Airflow is not set, or workers share no artefacts or MLflow.
    """
    configure_environment()
    servers.refuse_unshared_state(REQUIRED)
    # Several workers may share a machine.
    name = f"worker-{os.getpid()}@{socket.gethostname()}"
    # Two tasks at once: candidates train on all of a worker's cores otherwise.
    command = ["airflow", "celery", "worker", "--concurrency", "2", "--celery-hostname", name]
    os.execvp(command[0], command)
