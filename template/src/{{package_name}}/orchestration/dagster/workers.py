"""A worker for steps, `uv run poe worker` on each machine; see `defs/celery_executor.py`."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from ...defs.celery_executor import CELERY, REQUIRED
from .. import servers
from .instance import configure_environment, make_storage


def worker() -> None:
    """Work on steps until Ctrl-C; becomes the Celery worker.

    Raises:
        SystemExit: A variable is not set, or workers share no artefacts or MLflow.
    """
    configure_environment()
    servers.refuse_unshared_state(REQUIRED)
    make_storage()
    file = Path(os.environ["DAGSTER_HOME"]) / "celery.yaml"
    # JSON is YAML.
    file.write_text(json.dumps({"execution": {"config": CELERY}}))
    # Several workers may share a machine.
    name = f"worker-{os.getpid()}@{socket.gethostname()}"
    command = ["dagster-celery", "worker", "start", "--app", "dagster_celery.app"]
    command += ["--config-yaml", str(file), "--loglevel", "info"]
    # Two steps at once: candidates train on all of a worker's cores otherwise.
    command += ["--", "--concurrency", "2", "--hostname", name]
    os.execvp(command[0], command)


if __name__ == "__main__":
    worker()
