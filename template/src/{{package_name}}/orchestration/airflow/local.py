"""Airflow on this machine: run a DAG without a service, or start everything.

Used by `uv run poe run` and `uv run poe up`; a deployment starts Airflow's own services instead.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .. import servers
from ..runs import key_of_run
from ..servers import Server, out

# Where Airflow's own log-in keeps its users.
PASSWORDS = "simple_auth_manager_passwords.json.generated"


def configure_environment() -> Path:
    """Point Airflow at this project, unless the environment already says otherwise.

    Returns:
        The folder Airflow keeps its state in.
    """
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


def migrate(home: Path) -> None:
    """Create or upgrade Airflow's database, once for each database and version of Airflow."""
    from importlib.metadata import version

    address = os.environ.get("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "")
    digest = hashlib.sha256(address.encode()).hexdigest()[:8]
    marker = home / f".migrated-{version('apache-airflow')}-{digest}"
    if marker.exists():
        return
    home.mkdir(parents=True, exist_ok=True)
    with out.status("preparing Airflow's database (once)…"):
        done = subprocess.run(["airflow", "db", "migrate"], capture_output=True, text=True)
    if done.returncode != 0:
        out.print(done.stdout[-2000:] + done.stderr[-2000:], markup=False)
        raise SystemExit("airflow db migrate failed, see above")
    marker.touch()


def run(pipeline: str = "training", partition: str | None = None) -> None:
    """Run a whole DAG in this process, task by task, with Airflow's own task runner."""
    home = configure_environment()
    servers.refuse_unshared_state()
    migrate(home)
    from airflow.dag_processing.dagbag import DagBag

    dags = DagBag(dag_folder=os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    if dags.import_errors:
        for path, error in dags.import_errors.items():
            out.print(f"{path}:\n{error}", markup=False)
        raise SystemExit("a DAG does not import, see above")
    dag = next(dag for name, dag in dags.dags.items() if name.endswith(f"_{pipeline}"))
    from ...reporting.terminal import StageProgress, result_table

    with StageProgress():
        finished = dag.test(run_conf={"partition": partition} if partition else None)
    out.print(result_table(key_of_run(pipeline, finished.run_id)))
    # Airflow's test run ends without an error when a task failed.
    if finished.state != "success":
        raise SystemExit(f"the {pipeline} DAG ended as {finished.state}, see the log above")


def services() -> list[Server]:
    """Return Airflow's servers: standalone, or one per service where workers are elsewhere."""
    api: dict[str, Any] = {
        "health": f"{os.environ['AIRFLOW__API__BASE_URL']}/api/v2/monitor/health",
        "port": int(os.environ["AIRFLOW__API__PORT"]),
        "port_variable": "AIRFLOW__API__PORT",
    }
    # Standalone would go back to the LocalExecutor.
    if "Celery" not in os.environ.get("AIRFLOW__CORE__EXECUTOR", ""):
        return [Server("airflow", ["airflow", "standalone"], **api)]
    return [
        Server("airflow-api-server", ["airflow", "api-server"], **api),
        *(
            Server(f"airflow-{name}", ["airflow", name])
            for name in ("scheduler", "dag-processor", "triggerer")
        ),
    ]


def up() -> None:
    """Start Airflow and the MLflow UI; Ctrl-C stops them with all their children."""
    home = configure_environment()
    servers.refuse_unshared_state()
    migrate(home)
    address = os.environ["AIRFLOW__API__BASE_URL"]

    def addresses() -> Iterator[tuple[str, str]]:
        yield "Airflow", address
        # Absent where another log-in is configured, or none.
        file = home / PASSWORDS
        passwords = json.loads(file.read_text()) if file.exists() else {}
        for user, password in passwords.items():
            yield "  log in as", f"{user} / {password}"
        yield "MLflow", servers.mlflow_address()

    servers.serve([*services(), *servers.mlflow()], addresses, "Airflow and MLflow")


def prepare() -> None:
    """Create or upgrade a deployment's database, and write its log-in, $AIRFLOW_ADMIN_PASSWORD."""
    home = configure_environment()
    home.mkdir(parents=True, exist_ok=True)
    password = os.environ["AIRFLOW_ADMIN_PASSWORD"]
    file = home / PASSWORDS
    file.touch(mode=0o600)
    file.write_text(json.dumps({"admin": password}) + "\n")
    os.execvp("airflow", ["airflow", "db", "migrate"])


COMMANDS: dict[str, Callable[..., None]] = {"run": run, "up": up, "prepare": prepare}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
