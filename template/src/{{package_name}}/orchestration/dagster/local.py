"""Dagster on this machine: run a job without a service, or start everything.

Used by `uv run poe run` and `uv run poe up`; a deployment starts Dagster's own services instead.
"""

from __future__ import annotations

import os
import sys

from ...core import optional
from ...core.settings import load_settings
from ...defs.ui import address
from .. import servers
from ..local_run import attended, conclude
from ..servers import Server
from .instance import PACKAGE, configure_environment, make_storage


def run(pipeline: str = "training", partition: str | None = None, *, verbose: bool = False) -> None:
    """Run a whole job, its steps in processes of this machine."""
    configure_environment()
    servers.refuse_unshared_state()
    # Whatever a deployment does, here the steps are processes of this machine.
    os.environ["PIPELINE_WORKERS__DISTRIBUTED"] = "false"
    load_settings.cache_clear()
    with attended(pipeline, "Dagster", verbose=verbose) as log:
        make_storage()
        # Not before: the definitions read the settings.
        from .attended import execute, existing_partition

        done = execute(pipeline, existing_partition(partition))
    ended = f"the {pipeline} job ended as {done.status.value}"
    conclude(pipeline, done.run_id, None if done.is_success else ended, log)


def up() -> None:
    """Start Dagster's webserver, daemon and code server, and the MLflow UI; Ctrl-C stops all."""
    configure_environment()
    distributed = load_settings().workers.distributed
    required = optional.load("defs.celery_executor").REQUIRED if distributed else ()
    servers.refuse_unshared_state(required)
    make_storage()
    port = os.environ["DAGSTER_PORT"]
    # It starts the daemon and the code server, which webserver and daemon share.
    command = ["dagster", "dev", "--module-name", f"{PACKAGE}.definitions"]
    command += ["--host", "127.0.0.1", "--port", port]
    started = [Server("dagster", command, f"http://127.0.0.1:{port}/server_info", "DAGSTER_PORT")]
    if distributed:
        started.append(Server("worker", [sys.executable, "-m", f"{__package__}.workers"]))
    servers.serve(started, lambda: [("Dagster", address())])


if __name__ == "__main__":
    configure_environment()
    os.execvp(sys.argv[1], sys.argv[1:])
