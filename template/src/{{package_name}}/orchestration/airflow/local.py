"""Airflow on this machine: run a DAG without a service, or start everything.

Used by `uv run poe run` and `uv run poe up`; a deployment starts Airflow's own services instead.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ...core import closing
from ...core.ending import end_on_signal
from ...core.errors import Terminated
from .. import servers
from ..local_run import attended, conclude
from ..servers import Server, out

# Where Airflow's own log-in keeps its users.
PASSWORDS = "simple_auth_manager_passwords.json.generated"
# Airflow's command line in a process whose forks are tasks.
PRELOADED = [sys.executable, "-m", f"{__package__}.preloaded"]
# Variables that say where an Airflow keeps its state.
STATE = (
    *("AIRFLOW_HOME", "AIRFLOW_CONFIG", "AIRFLOW__CORE__DAGS_FOLDER"),
    *("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "AIRFLOW__CELERY__BROKER_URL"),
)


def configure_environment() -> Path:
    """Point Airflow at this project where the environment does not, and return Airflow's folder."""
    root = servers.base_environment("AIRFLOW_", *STATE)
    home = os.environ.get("AIRFLOW_HOME", str(root / "var" / "airflow"))
    if "%" in home:
        raise SystemExit(f"error: Airflow takes no % in its folder's path: move {home}")
    port = os.environ.setdefault("AIRFLOW__API__PORT", "8080")
    defaults = {
        "AIRFLOW_HOME": home,
        "AIRFLOW__CORE__DAGS_FOLDER": str(root / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        # A pipeline without a schedule starts by hand only, so nothing runs unasked.
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "false",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    return Path(os.environ["AIRFLOW_HOME"])


def run(pipeline: str = "training", partition: str | None = None, *, verbose: bool = False) -> None:
    """Run a whole DAG in this process, task by task, with Airflow's own task runner."""
    configure_environment()
    servers.refuse_unshared_state()
    closing.owner = closing.this_process()
    end_on_signal(partial(_end, pipeline))
    with attended(pipeline, "Airflow", verbose=verbose) as log:
        finished = _run(pipeline, partition)
    # Airflow's test run ends without an error when a task failed.
    ended = f"the {pipeline} DAG ended as {finished.state}"
    conclude(pipeline, finished.run_id, None if finished.state == "success" else ended, log)


def _run(pipeline: str, partition: str | None) -> Any:
    make_tables()
    from airflow.dag_processing.dagbag import DagBag

    dags = DagBag(dag_folder=os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    if dags.import_errors:
        errors = [f"{path}:\n{error}" for path, error in dags.import_errors.items()]
        raise SystemExit("\n".join([*errors, "a DAG does not import, see above"]))
    dag = next((dag for name, dag in dags.dags.items() if name.endswith(f"_{pipeline}")), None)
    if dag is None:
        raise SystemExit(f"no DAG of '{pipeline}' in dags/; there are: {', '.join(dags.dags)}")
    return dag.test(run_conf={"partition": partition} if partition else None)


def make_tables() -> None:
    """Make Airflow's tables where there are none; one process does, others wait for it."""
    with servers.one_at_a_time():
        from airflow.utils import db

        try:
            db.check_migrations(timeout=0)  # type: ignore[no-untyped-call]
        except TimeoutError:
            db.initdb()


def _end(pipeline: str, error: Terminated) -> None:
    """Record, alert and close what a signal ends: Airflow would only try the task again."""
    from ... import alerts
    from ...core.stage import end_running
    from ...stages import run_stage

    ended = end_running(error)
    stages = ", ".join(ended)
    named = Terminated(error.number, stages)
    out.show_cursor(True)
    out.print(f"error: {named}", markup=False)
    for run in list(ended.values())[:1]:
        if not error.is_interactive:
            alerts.send_failure_of(run, stages, named)
        run_stage("report", run)
    if not (ended or error.is_interactive):
        alerts.send_failure(named, pipeline=pipeline)


def up() -> None:
    """Start Airflow and the MLflow UI; Ctrl-C stops them with all their children."""
    home = configure_environment()
    servers.refuse_unshared_state()
    address = os.environ["AIRFLOW__API__BASE_URL"]
    health, port = f"{address}/api/v2/monitor/health", "AIRFLOW__API__PORT"
    with servers.log_file("airflow-database").open("wb") as log, servers.one_at_a_time():
        migrated = subprocess.run(["airflow", "db", "migrate"], stdout=log, stderr=log, check=False)
    if migrated.returncode:
        raise SystemExit(f"Airflow's database could not be brought up to date: see {log.name}")
    other = ("AIRFLOW__CORE__AUTH_MANAGER", "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_")
    if not (home / PASSWORDS).exists() and not any(one.startswith(other) for one in os.environ):
        # Airflow would print one into its log.
        _write_password(home, secrets.token_urlsafe(12))
    # Their servers of logs would listen on all addresses; here the UI reads the files themselves.
    quiet = ["--skip-serve-logs"]
    started = [
        Server("airflow-api-server", ["airflow", "api-server"], health, port),
        Server("airflow-scheduler", [*PRELOADED, "scheduler", *quiet]),
        Server("airflow-dag-processor", ["airflow", "dag-processor"]),
        Server("airflow-triggerer", ["airflow", "triggerer", *quiet]),
    ]

    def addresses() -> Iterator[tuple[str, str]]:
        yield "Airflow", address
        # Absent where another log-in is configured, or none.
        file = home / PASSWORDS
        passwords = json.loads(file.read_text()) if file.exists() else {}
        for user, password in passwords.items():
            yield "  log in as", f"{user} / {password}"

    servers.serve(started, addresses)


def prepare() -> None:
    """Create or upgrade a deployment's database, and write its log-in, $AIRFLOW_ADMIN_PASSWORD."""
    _write_password(configure_environment(), os.environ["AIRFLOW_ADMIN_PASSWORD"])
    os.execvp("airflow", ["airflow", "db", "migrate"])


def _write_password(home: Path, password: str) -> None:
    home.mkdir(parents=True, exist_ok=True)
    file = home / PASSWORDS
    file.touch(mode=0o600)
    file.chmod(0o600)
    file.write_text(json.dumps({"admin": password}) + "\n")


def airflow() -> None:
    """Become Airflow's command line, on this project's database and DAGs."""
    configure_environment()
    os.execvp("airflow", ["airflow", *sys.argv[2:]])


if __name__ == "__main__":
    {"prepare": prepare, "airflow": airflow}[sys.argv[1]]()
