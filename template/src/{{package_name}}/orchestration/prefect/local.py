"""Prefect on this machine: run a flow without a service, or start everything.

Used by `uv run poe run` and `uv run poe up`; a deployment starts Prefect's own services instead.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from ...core.settings import load_settings
from .. import servers
from ..runs import key_of_run
from ..servers import READY_WITHIN_SECONDS, Server, out

PACKAGE = __name__.partition(".")[0]
PIPELINES = ("training", "inference")
# The work pool of prefect.yaml.
POOL = "pipelines"
# What a server of one flow run's length has no use for.
WITHOUT_SERVICES = {
    f"PREFECT_SERVER_SERVICES_{service}_ENABLED": "false"
    for service in (
        *("CANCELLATION_CLEANUP", "CLEANUP_RECONCILER", "FOREMAN", "LATE_RUNS"),
        *("PAUSE_EXPIRATIONS", "REPOSSESSOR", "SCHEDULER", "TRIGGERS"),
    )
} | {
    "PREFECT_UI_ENABLED": "false",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
    # Leases in files would outlive it, and cost every later run the time to clear them.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.memory",
}


def configure_environment() -> Path:
    """Point Prefect at this project, unless the environment already says otherwise.

    Returns:
        The project's root.
    """
    root = servers.base_environment()
    port = os.environ.setdefault("PREFECT_SERVER_API_PORT", "4200")
    defaults = {
        "PREFECT_HOME": str(root / "var" / "prefect"),
        # A profile of the user's own would bring another server.
        "PREFECT_PROFILES_PATH": str(root / "var" / "prefect" / "profiles.toml"),
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_UI_URL": f"http://127.0.0.1:{port}",
        # In memory, places under a concurrency limit would stay taken when the server restarts.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
            "prefect.server.concurrency.lease_storage.filesystem"
        ),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # The stages' log lines belong to the flow run's log.
        "PREFECT_LOGGING_EXTRA_LOGGERS": PACKAGE,
        "PREFECT_LOGGING_LEVEL": "WARNING" if sys.stdout.isatty() else "INFO",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    return root


def run(pipeline: str = "training", partition: str | None = None) -> None:
    """Run a whole flow in this process; Prefect's API is served for as long as it lives."""
    root = configure_environment()
    servers.refuse_unshared_state()
    wait_for_api = _serve_api(root)
    from prefect.flows import load_flow_from_entrypoint

    from ...reporting.terminal import StageProgress, result_table

    entrypoint = f"{root}/flows/{pipeline}.py:{pipeline}"
    flow: Any = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    wait_for_api()
    with StageProgress():
        state = flow(partition=partition, return_state=True)
    out.print(result_table(key_of_run(pipeline, str(state.state_details.flow_run_id))))
    if not state.is_completed():
        raise SystemExit(f"the {pipeline} flow ended as {state.name}: {state.message}")


def _serve_api(root: Path) -> Callable[[], None]:
    """Serve the API until this process ends, unless there is a server; returns how to wait for it.

    Prefect's own temporary server would load all of the server into this process, too.
    """
    if "PREFECT_API_URL" in os.environ:
        return lambda: None
    address = f"http://127.0.0.1:{os.environ['PREFECT_SERVER_API_PORT']}/api"
    if api_answers(address):
        os.environ["PREFECT_API_URL"] = address
        return lambda: None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ["PREFECT_API_URL"] = address = f"http://127.0.0.1:{port}/api"
    factory = "prefect.server.api.server:create_app"
    # It lives too briefly to collect garbage, of which importing makes much.
    uvicorn = "import gc; gc.disable(); import uvicorn; uvicorn.main()"
    command = [sys.executable, "-c", uvicorn, "--factory", factory, "--port", f"{port}"]
    log = root / "var" / "log" / "prefect-api.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        server = subprocess.Popen(
            [*command, "--log-level", "warning", "--timeout-graceful-shutdown", "1"],
            env={**os.environ, **WITHOUT_SERVICES},
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    # At exit, and registered before Prefect's: its last events are to arrive.
    atexit.register(server.wait)
    atexit.register(server.terminate)

    def wait() -> None:
        deadline = time.monotonic() + READY_WITHIN_SECONDS
        while not api_answers(address):
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"Prefect's API did not start: see {log}")
            time.sleep(0.2)

    return wait


def api_answers(address: str) -> bool:
    """Return whether a Prefect server answers at an API address."""
    import httpx

    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{address}/health", timeout=2, trust_env=False).status_code == 200
    return False


def up() -> None:
    """Start Prefect's server, one worker of the pool, and the MLflow UI; Ctrl-C stops all."""
    configure_environment()
    servers.refuse_unshared_state()
    port = os.environ["PREFECT_SERVER_API_PORT"]
    address = f"http://127.0.0.1:{port}"
    started = []
    if "PREFECT_API_URL" not in os.environ:
        os.environ["PREFECT_API_URL"] = f"{address}/api"
        started.append(
            Server(
                "prefect",
                ["prefect", "server", "start", "--host", "127.0.0.1", "--port", port],
                health=f"{address}/api/health",
                port=int(port),
                port_variable="PREFECT_SERVER_API_PORT",
            )
        )
    started.append(
        Server(
            "prefect-worker",
            [sys.executable, "-m", __spec__.name, "worker"],
            # Answers as soon as the worker has made the last deployment.
            health=f"{os.environ['PREFECT_API_URL']}/deployments/name/{PIPELINES[-1]}/{PIPELINES[-1]}",
        )
    )

    def addresses() -> Iterator[tuple[str, str]]:
        yield "Prefect", os.environ["PREFECT_UI_URL"]
        yield "MLflow", servers.mlflow_address()

    servers.serve([*started, *servers.mlflow()], addresses, "Prefect and MLflow")


def deploy() -> None:
    """Create the work pool and the deployments of prefect.yaml, with the configured schedules."""
    root = configure_environment()
    schedule = load_settings().schedule
    _prefect("work-pool", "create", POOL, "--type", "process", "--overwrite", cwd=root)
    for pipeline in PIPELINES:
        cron = getattr(schedule, pipeline)
        options = ["--cron", cron, "--timezone", "UTC"] if cron else []
        _prefect("--no-prompt", "deploy", "--name", pipeline, *options, cwd=root)


def backfill(pipeline: str, first: str, last: str) -> None:
    """Run a deployment once for each day, one after another.

    Args:
        pipeline: training or inference.
        first: The first day, like 2013-02-01.
        last: The last day.
    """
    configure_environment()
    from prefect.deployments import run_deployment

    day = date.fromisoformat(first)
    while day <= date.fromisoformat(last):
        run_deployment(f"{pipeline}/{pipeline}", parameters={"partition": f"{day}"}, timeout=0)
        out.print(f"{pipeline} of {day} is scheduled")
        day += timedelta(days=1)


def worker(*options: str) -> None:
    """Deploy the flows as soon as the server answers, then become a worker of the pool.

    Args:
        options: More of what `prefect worker start` takes.
    """
    configure_environment()
    wait_for_server(os.environ["PREFECT_API_URL"])
    deploy()
    # A process number says nothing where other machines run flows, too.
    if not load_settings().workers.distributed:
        recover()
    become_worker(*options)


def recover() -> None:
    """Schedule runs again whose process ended with its worker, on this machine."""
    from prefect import get_client
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.states import AwaitingRetry, Crashed

    from ...core.storage import is_alive

    running = FlowRunFilter.model_validate({"state": {"type": {"any_": ["RUNNING"]}}})
    with get_client(sync_client=True) as client:
        for flow_run in client.read_flow_runs(flow_run_filter=running):
            pid = flow_run.infrastructure_pid or ""
            if pid.isdigit() and not is_alive(int(pid)):
                # First crashed, which gives back its place under the concurrency limit.
                client.set_flow_run_state(flow_run.id, Crashed(message="its worker was stopped"))
                client.set_flow_run_state(flow_run.id, AwaitingRetry(), force=True)


def wait_for_server(address: str) -> None:
    """Wait until the server answers.

    Raises:
        SystemExit: It does not.
    """
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    while not api_answers(address):
        if time.monotonic() > deadline:
            raise SystemExit(f"no Prefect server answers at {address}")
        time.sleep(0.5)


def become_worker(*options: str) -> None:
    """Replace this process by a worker of the pool, with more options if need be."""
    command = ["prefect", "worker", "start", "--pool", POOL, "--type", "process", *options]
    os.execvp(command[0], command)


def again(flow_run_id: str, delay: str) -> None:
    """Schedule a crashed flow run again after some seconds; it keeps its id."""
    configure_environment()
    from prefect import get_client
    from prefect.states import AwaitingRetry

    time.sleep(float(delay))
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(flow_run_id), AwaitingRetry(), force=True)


def _prefect(*arguments: str, cwd: Path) -> None:
    done = subprocess.run(["prefect", *arguments], cwd=cwd, capture_output=True, text=True)
    if done.returncode != 0:
        out.print(done.stdout[-2000:] + done.stderr[-2000:], markup=False)
        raise SystemExit(f"prefect {' '.join(arguments)} failed, see above")


COMMANDS: dict[str, Callable[..., None]] = {
    "run": run,
    "up": up,
    "deploy": deploy,
    "worker": worker,
    "backfill": backfill,
    "again": again,
}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
