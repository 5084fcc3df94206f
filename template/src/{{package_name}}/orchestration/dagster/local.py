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
from ..runs import key_of_run
from ..servers import Server, out
from .instance import PACKAGE, configure_environment


def run(pipeline: str = "training", partition: str | None = None) -> None:
    """Run a whole job, its steps in processes of this machine."""
    configure_environment()
    servers.refuse_unshared_state()
    # Whatever a deployment does, here the steps are processes of this machine.
    os.environ["PIPELINE_WORKERS__DISTRIBUTED"] = "false"
    load_settings.cache_clear()
    # Not before: the definitions read the settings.
    from ...reporting.terminal import result_table
    from .attended import execute, existing_partition

    done = execute(pipeline, existing_partition(partition))
    out.print(result_table(key_of_run(pipeline, done.run_id)))
    if not done.is_success:
        raise SystemExit(f"the {pipeline} job ended as {done.status.value}, see the log above")


def up() -> None:
    """Start Dagster's webserver, daemon and code server, and the MLflow UI; Ctrl-C stops all."""
    configure_environment()
    distributed = load_settings().workers.distributed
    required = optional.load("defs.celery_executor").REQUIRED if distributed else ()
    servers.refuse_unshared_state(required)
    port = os.environ["DAGSTER_PORT"]
    # It starts the daemon and the code server, which webserver and daemon share.
    command = ["dagster", "dev", "--module-name", f"{PACKAGE}.definitions"]
    command += ["--host", "127.0.0.1", "--port", port]
    started = [Server("dagster", command, f"http://127.0.0.1:{port}/server_info", "DAGSTER_PORT")]
    if distributed:
        started.append(Server("worker", [sys.executable, "-m", f"{__package__}.workers"]))
    servers.serve(started, lambda: [("Dagster", address())])
