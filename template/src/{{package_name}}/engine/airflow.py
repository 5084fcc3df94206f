"""Airflow on this machine: run the training DAG without a service, or start everything.

Used by `uv run poe run` and `uv run poe up`; a deployment starts Airflow's own services instead.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn, TypeAlias

from rich import box
from rich.console import Console
from rich.table import Table

from ..platform import tracking
from ..platform.paths import project_root
from ..platform.settings import load_environment

Children: TypeAlias = dict[str, subprocess.Popen[bytes]]

out = Console()
READY_WITHIN_SECONDS = 180


def configure_environment() -> Path:
    """Point Airflow at this project, unless the environment already says otherwise.

    Returns:
        The folder Airflow keeps its state in.
    """
    load_environment()
    root = project_root()
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
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "PIPELINE_HOME": str(root),
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    # The engine's commands start one another by name.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return Path(os.environ["AIRFLOW_HOME"])


def migrate(home: Path) -> None:
    """Create or upgrade Airflow's database, once for each version of Airflow."""
    from importlib.metadata import version

    marker = home / f".migrated-{version('apache-airflow')}"
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
    migrate(home)
    from airflow.dag_processing.dagbag import DagBag

    dags = DagBag(dag_folder=os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    if dags.import_errors:
        for path, error in dags.import_errors.items():
            out.print(f"{path}:\n{error}", markup=False)
        raise SystemExit("a DAG does not import, see above")
    dag = next(dag for name, dag in dags.dags.items() if name.endswith(f"_{pipeline}"))
    from ..results import StageProgress, result_table
    from .airflow_dag import key_of_run

    with StageProgress():
        finished = dag.test(run_conf={"partition": partition} if partition else None)
    out.print(result_table(key_of_run(pipeline, finished.run_id)))
    # Airflow's test run ends without an error when a task failed.
    if finished.state != "success":
        raise SystemExit(f"the {pipeline} DAG ended as {finished.state}, see the log above")


def up() -> None:
    """Start Airflow standalone and the MLflow UI; Ctrl-C stops both with all their children."""
    home = configure_environment()
    migrate(home)
    logs = project_root() / "var" / "log"
    logs.mkdir(parents=True, exist_ok=True)
    tracking.client()  # creates the local store before two processes could race for it
    airflow_url = os.environ["AIRFLOW__API__BASE_URL"]
    port = os.environ.setdefault("MLFLOW_PORT", "5000")
    mlflow_url = f"http://127.0.0.1:{port}"
    _require_free_port(int(os.environ["AIRFLOW__API__PORT"]), "AIRFLOW__API__PORT")
    _require_free_port(int(port), "MLFLOW_PORT")

    mlflow = ["mlflow", "server", "--backend-store-uri", tracking.tracking_uri(), "--port", port]
    # Loopback only; its job runner would cost eight more processes.
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    commands = {"airflow": ["airflow", "standalone"], "mlflow": mlflow}
    # A termination must reach the children as an interrupt does.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    children = {name: _spawn(command, logs / f"{name}.log") for name, command in commands.items()}
    try:
        with out.status("starting Airflow and MLflow (about half a minute)…"):
            _wait_until_ready(f"{airflow_url}/api/v2/monitor/health", children, logs)
            _wait_until_ready(f"{mlflow_url}/health", children, logs)
        out.print(_addresses(home, airflow_url, mlflow_url, logs))
        while all(child.poll() is None for child in children.values()):
            time.sleep(1)
        _fail_with_log(children, logs)
    except KeyboardInterrupt:
        out.print("stopping…")
    finally:
        _stop(children.values())
    out.print("stopped")


def _spawn(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    # A session of its own, so that one signal reaches the whole family.
    with log.open("wb") as stream:
        return subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )


def _stop(children: Iterable[subprocess.Popen[bytes]]) -> None:
    # An impatient second Ctrl-C must not leave half of them running.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def _wait_until_ready(url: str, children: Children, logs: Path) -> None:
    import httpx

    for _ in range(READY_WITHIN_SECONDS):
        if any(child.poll() is not None for child in children.values()):
            _fail_with_log(children, logs)
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=2).status_code == 200:
                return
        time.sleep(1)
    raise SystemExit(f"{url} did not answer within {READY_WITHIN_SECONDS} s: see {logs}")


def _fail_with_log(children: Children, logs: Path) -> NoReturn:
    name = next(name for name, child in children.items() if child.poll() is not None)
    log = logs / f"{name}.log"
    out.print("\n".join(log.read_text(errors="replace").splitlines()[-30:]), markup=False)
    raise SystemExit(f"{name} stopped by itself, its last lines are above; all of them: {log}")


def _require_free_port(port: int, variable: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise SystemExit(
                f"port {port} is taken: stop what uses it, or set {variable} in .env to another"
            ) from None


def _addresses(home: Path, airflow_url: str, mlflow_url: str, logs: Path) -> Table:
    # Absent where another log-in is configured, or none.
    file = home / "simple_auth_manager_passwords.json.generated"
    passwords = json.loads(file.read_text()) if file.exists() else {}
    table = Table(box=box.ROUNDED, show_header=False, title="Ctrl-C stops everything")
    table.add_row("Airflow", airflow_url)
    for user, password in passwords.items():
        table.add_row("  log in as", f"{user} / {password}")
    table.add_row("MLflow", mlflow_url)
    table.add_row("logs", str(logs))
    return table


if __name__ == "__main__":
    run(*sys.argv[1:])
