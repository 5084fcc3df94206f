"""A Celery worker of Airflow on this machine; `uv run poe worker` on each machine that works."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

from .. import servers
from .local import PRELOADED, configure_environment

# What the scheduler's machine and every worker must have in common.
REQUIRED = (
    "AIRFLOW__CELERY__BROKER_URL",
    "AIRFLOW__CELERY__RESULT_BACKEND",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    "AIRFLOW__API_AUTH__JWT_SECRET",
)
THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


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
    command = [*PRELOADED, "celery", "worker", "--concurrency", "2", "--celery-hostname", name]
    # Its server of logs listens on all addresses, whatever is set. Only a UI elsewhere needs it.
    if urlsplit(os.environ["AIRFLOW__CELERY__BROKER_URL"]).hostname in THIS_MACHINE:
        command.append("--skip-serve-logs")
    os.execv(command[0], command)
