"""Dagster on this machine: run a job without a service, or start everything.

Used by `uv run poe run` and `uv run poe up`; a deployment starts Dagster's own services instead.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ...core.settings import load_environment, load_settings
from ..runs import key_of_run

if TYPE_CHECKING:
    import dagster as dg

out = Console()
DEFINITIONS = f"{__package__.partition('.')[0]}.definitions"
# Loaded once for all steps of a run, whose processes are forked from the one that did. What
# stages and Dagster itself import at their first use; a name that is gone is ignored.
PRELOADED = [
    DEFINITIONS,
    "alembic.command",
    "dagster._core.storage.base_storage",
    "matplotlib.figure",
    "mlflow.sklearn",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "optuna",
    "pandera.polars",
    "sklearn.ensemble",
    "sklearn.inspection",
    "sklearn.linear_model",
    "xgboost",
]


def executor() -> dg.ExecutorDefinition:
    """Return what runs the steps: processes of this machine, or Celery's workers."""
    import dagster as dg

    if load_settings().workers.distributed:
        distributed: dg.ExecutorDefinition = _workers().executor()
        return distributed
    return dg.multiprocess_executor.configured(
        {"max_concurrent": 4, "start_method": {"forkserver": {"preload_modules": PRELOADED}}}
    )


def _workers() -> ModuleType:
    # Part of projects with distributed workers only.
    return importlib.import_module(".workers", __package__)


def address() -> str:
    """Return where Dagster's UI is."""
    load_environment()
    port = os.environ.get("DAGSTER_PORT", "3000")
    return os.environ.get("DAGSTER_URL", f"http://127.0.0.1:{port}").rstrip("/")


def run_address(run_id: str, step: str | None = None) -> str:
    """Return the UI's page of a run, on the log of a step where one is named."""
    page = f"{address()}/runs/{run_id}"
    return f"{page}?logs=step%3A{step}" if step else page


def configure_environment() -> None:
    """Point Dagster at this project, unless the environment already says otherwise."""
    from ..servers import base_environment

    root = base_environment()
    home = Path(os.environ.setdefault("DAGSTER_HOME", str(root / "var" / "dagster")))
    os.environ.setdefault("DAGSTER_PORT", "3000")
    home.mkdir(parents=True, exist_ok=True)
    # JSON is YAML. Untouched where nothing changed: other processes may be reading it.
    text = json.dumps(_instance(), indent=2) + "\n"
    file = home / "dagster.yaml"
    if not file.exists() or file.read_text() != text:
        file.write_text(text)


def _instance() -> dict[str, object]:
    limits = load_settings().limits
    one_at_a_time = {"key": "pipeline", "value": {"applyLimitPerUniqueValue": True}, "limit": 1}
    configuration: dict[str, object] = {
        "telemetry": {"enabled": False},
        "nux": {"enabled": False},
        # The pipeline's own log lines are shown with the run.
        "python_logs": {
            "managed_python_loggers": [__package__.partition(".")[0]],
            "python_log_level": load_settings().logging.level.upper(),
        },
        "concurrency": {
            "runs": {"max_concurrent_runs": 4, "tag_concurrency_limits": [one_at_a_time]}
        },
        # A run whose process is gone is tried again as a whole; a failed step tries itself again.
        "run_monitoring": {"enabled": True, "poll_interval_seconds": 10},
        "run_retries": {
            "enabled": True,
            "max_retries": limits.retries,
            "retry_on_asset_or_op_failure": False,
        },
    }
    if "DAGSTER_POSTGRES_URL" in os.environ:
        configuration["storage"] = {"postgres": {"postgres_url": {"env": "DAGSTER_POSTGRES_URL"}}}
    return configuration


def run(pipeline: str = "training", partition: str | None = None) -> None:
    """Run a whole job, its steps in processes of this machine."""
    configure_environment()
    from ..servers import refuse_unshared_state

    refuse_unshared_state()
    # Whatever a deployment does, here the steps are processes of this machine.
    os.environ["PIPELINE_WORKERS__DISTRIBUTED"] = "false"
    load_settings.cache_clear()
    import dagster as dg

    from ... import definitions
    from ...defs.common import PARTITIONS
    from ...defs.outcome import ATTENDED, alert_failure, report_of
    from ...reporting.terminal import result_table
    from ...sources.files import newest_partition

    day = partition or f"{newest_partition(load_settings())}"
    if not PARTITIONS.has_partition_key(day):
        first = PARTITIONS.get_first_partition_key()
        raise SystemExit(
            f"partition '{day}' is no day from {first} on, where [schedule] start_date begins"
        )
    with dg.DagsterInstance.get() as instance:

        def execute(name: str, **options: Any) -> dg.DagsterRun:
            job = dg.reconstructable(getattr(definitions, f"{name}_job"))
            loggers = {"console": {"config": {"log_level": "INFO"}}}
            config = {"loggers": loggers, **options.pop("run_config", {})}
            tags = {ATTENDED: "true", **options.pop("tags", {})}
            done = dg.execute_job(job, instance, run_config=config, tags=tags)
            record = instance.get_run_by_id(done.run_id)
            assert record is not None
            if not done.success:
                alert_failure(instance, record, "the run failed outside its steps")
            return record

        record = execute(pipeline, tags={"dagster/partition": day})
        ended = report_of(instance, record)
        if ended is not None:
            execute("report", run_config=ended)
    out.print(result_table(key_of_run(pipeline, record.run_id)))
    if not record.is_success:
        raise SystemExit(f"the {pipeline} job ended as {record.status.value}, see the log above")


def up() -> None:
    """Start Dagster's webserver, daemon and code server, and the MLflow UI; Ctrl-C stops all."""
    configure_environment()
    from ..servers import (
        Server,
        mlflow,
        mlflow_address,
        refuse_unshared_state,
        require_variables,
        serve,
    )

    refuse_unshared_state()
    distributed = load_settings().workers.distributed
    if distributed:
        require_variables(_workers().REQUIRED)
    port = os.environ["DAGSTER_PORT"]
    # It starts the daemon and the code server, which webserver and daemon share.
    command = ["dagster", "dev", "--module-name", DEFINITIONS, "--host", "127.0.0.1"]
    servers = [
        Server(
            "dagster",
            [*command, "--port", port],
            health=f"http://127.0.0.1:{port}/server_info",
            port=int(port),
            port_variable="DAGSTER_PORT",
        ),
        *mlflow(),
    ]
    if distributed:
        servers.append(Server("worker", [sys.executable, "-m", f"{__package__}.workers"]))
    serve(servers, lambda: [("Dagster", address()), ("MLflow", mlflow_address())], "Dagster")


def prepare() -> None:
    """Write a deployment's dagster.yaml, and create or upgrade its database."""
    configure_environment()
    os.execvp("dagster", ["dagster", "instance", "migrate"])


if __name__ == "__main__":
    prepare()
