"""Steps on Celery's workers: the executor, and a worker, `uv run poe worker` on each machine."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_celery import celery_executor

from .. import servers
from .local import configure_environment

BROKER = "DAGSTER_CELERY_BROKER_URL"
BACKEND = "DAGSTER_CELERY_BACKEND_URL"
# What the machine of webserver and daemon and every worker must have in common.
REQUIRED = (BROKER, BACKEND, "DAGSTER_POSTGRES_URL")
CELERY: dict[str, Any] = {"broker": {"env": BROKER}, "backend": {"env": BACKEND}}


def executor() -> dg.ExecutorDefinition:
    """Return the executor that sends each step to the workers."""
    return celery_executor.configured(CELERY)


def worker() -> None:
    """Work on steps until Ctrl-C; becomes the Celery worker.

    Raises:
        SettingsError: A variable is not set.
        SystemExit: Workers share no artefacts or MLflow.
    """
    configure_environment()
    servers.refuse_unshared_state()
    servers.require_variables(REQUIRED)
    file = Path(os.environ["DAGSTER_HOME"]) / "celery.yaml"
    # JSON is YAML.
    file.write_text(json.dumps({"execution": {"config": CELERY}}))
    # Several workers may share a machine.
    name = f"worker-{os.getpid()}@{socket.gethostname()}"
    start = ["dagster-celery", "worker", "start", "--app", "dagster_celery.app"]
    # Two steps at once: candidates train on all of a worker's cores otherwise.
    celery = ["--concurrency", "2", "--hostname", name]
    command = [*start, "--config-yaml", str(file), "--loglevel", "info", "--", *celery]
    os.execvp(command[0], command)


if __name__ == "__main__":
    worker()
