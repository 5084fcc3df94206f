"""Airflow on this machine: run a DAG without a service, or start everything.

Used by `uv run poe run` and `uv run poe up`; a deployment starts Airflow's own services instead.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from .. import servers
from ..runs import key_of_run
from ..servers import Server, out

# Where Airflow's own log-in keeps its users.
PASSWORDS = "simple_auth_manager_passwords.json.generated"


def configure_environment() -> Path:
    """Point Airflow at this project where the environment does not, and return Airflow's folder."""
    root = servers.base_environment()
    port = os.environ.setdefault("AIRFLOW__API__PORT", "8080")
    defaults = {
        "AIRFLOW_HOME": str(root / "var" / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(root / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        # A pipeline without a schedule starts by hand only, so nothing runs unasked.
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "false",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING" if sys.stdout.isatty() else "INFO",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    return Path(os.environ["AIRFLOW_HOME"])


def run(pipeline: str = "training", partition: str | None = None) -> None:
    """Run a whole DAG in this process, task by task, with Airflow's own task runner."""
    configure_environment()
    servers.refuse_unshared_state()
    from airflow.dag_processing.dagbag import DagBag
    from airflow.utils import db

    try:
        db.check_migrations(timeout=0)  # type: ignore[no-untyped-call]
    except TimeoutError:
        db.initdb()
    dags = DagBag(dag_folder=os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    if dags.import_errors:
        errors = [f"{path}:\n{error}" for path, error in dags.import_errors.items()]
        raise SystemExit("\n".join([*errors, "a DAG does not import, see above"]))
    dag = next(dag for name, dag in dags.dags.items() if name.endswith(f"_{pipeline}"))
    from ...reporting.terminal import StageProgress, result_table

    with StageProgress():
        finished = dag.test(run_conf={"partition": partition} if partition else None)
    out.print(result_table(key_of_run(pipeline, finished.run_id)))
    # Airflow's test run ends without an error when a task failed.
    if finished.state != "success":
        raise SystemExit(f"the {pipeline} DAG ended as {finished.state}, see the log above")


def up() -> None:
    """Start Airflow and the MLflow UI; Ctrl-C stops them with all their children."""
    home = configure_environment()
    servers.refuse_unshared_state()
    address = os.environ["AIRFLOW__API__BASE_URL"]
    health, port = f"{address}/api/v2/monitor/health", "AIRFLOW__API__PORT"
    started = [Server("airflow", ["airflow", "standalone"], health, port)]
    # Standalone would go back to the LocalExecutor.
    if "Celery" in os.environ.get("AIRFLOW__CORE__EXECUTOR", ""):
        subprocess.run(["airflow", "db", "migrate"], check=True)
        started = [Server("airflow-api-server", ["airflow", "api-server"], health, port)]
        others = ("scheduler", "dag-processor", "triggerer")
        started += [Server(f"airflow-{name}", ["airflow", name]) for name in others]

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
    home = configure_environment()
    home.mkdir(parents=True, exist_ok=True)
    password = os.environ["AIRFLOW_ADMIN_PASSWORD"]
    file = home / PASSWORDS
    file.touch(mode=0o600)
    file.write_text(json.dumps({"admin": password}) + "\n")
    os.execvp("airflow", ["airflow", "db", "migrate"])


if __name__ == "__main__" and sys.argv[1:] == ["prepare"]:
    prepare()
