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
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from ...core.ending import raise_signals
from ...core.errors import Terminated
from ...core.settings import load_settings
from .. import servers
from ..local_run import attended, conclude
from ..runs import refuse_catchup, refuse_dates
from ..servers import Server, out

PACKAGE = __name__.partition(".")[0]
PIPELINES = ("training", "inference")
# The work pool of prefect.yaml.
POOL = "pipelines"
# Variables that say where a Prefect keeps its state.
STATE = (
    *("PREFECT_HOME", "PREFECT_PROFILE", "PREFECT_API_URL", "PREFECT_API_KEY"),
    *("PREFECT_API_DATABASE_", "PREFECT_SERVER_DATABASE_"),
)
# Serves the API until the standard input ends, as it does with the process that started it, however
# that ends. It lives too briefly to collect garbage, of which importing makes much.
API_SERVER = """
import gc, os, signal, sys, threading
def end_with_parent():
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=end_with_parent, daemon=True).start()
gc.disable()
import uvicorn
uvicorn.main()
"""
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
    """Point Prefect at this project where the environment does not, and return its root."""
    root = servers.base_environment("PREFECT_", *STATE)
    port = os.environ.setdefault("PREFECT_SERVER_API_PORT", "4200")
    defaults = {
        "PREFECT_HOME": str(root / "var" / "prefect"),
        # The user's own profile would bring another server.
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
        "PREFECT_LOGGING_LEVEL": "INFO",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    return root


def run(pipeline: str = "training", partition: str | None = None, *, verbose: bool = False) -> None:
    """Run a whole flow in this process; Prefect's API is served until it ends."""
    root = configure_environment()
    servers.refuse_unshared_state()
    try:
        with attended(pipeline, "Prefect", verbose=verbose) as log:
            state = _run(root, pipeline, partition)
    except Terminated as error:
        out.print(f"error: {error}", markup=False)
        raise SystemExit(error.exit_code) from None
    ended = f"the {pipeline} flow ended as {state.name}: {state.message}"
    run_id = f"{state.state_details.flow_run_id}"
    conclude(pipeline, run_id, None if state.is_completed() else ended, log)


def _run(root: Path, pipeline: str, partition: str | None) -> Any:
    wait_for_api = _serve_api()
    from prefect.flows import load_flow_from_entrypoint

    from ...core import closing

    closing.owner = closing.this_process()
    entrypoint = f"{root}/flows/{pipeline}.py:{pipeline}"
    flow: Any = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    wait_for_api()
    # Prefect passes a signal on to the handler that was there before.
    with raise_signals():
        return flow(partition=partition, return_state=True)


def _serve_api() -> Callable[[], None]:
    """Serve the API until this process ends, unless there is a server; returns how to wait for it.

    Prefect's own temporary server would load all of the server into this process. A server
    makes its tables as it starts: others wait until it is ready.
    """
    if "PREFECT_API_URL" in os.environ:
        return lambda: None
    address = f"http://127.0.0.1:{os.environ['PREFECT_SERVER_API_PORT']}/api"
    with contextlib.suppress(httpx.HTTPError):
        httpx.get(f"{address}/health", timeout=2, trust_env=False).raise_for_status()
        os.environ["PREFECT_API_URL"] = address
        return lambda: None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ["PREFECT_API_URL"] = address = f"http://127.0.0.1:{port}/api"
    options = ["--log-level", "warning", "--timeout-graceful-shutdown", "1"]
    api = ["--factory", "prefect.server.api.server:create_app", "--port", f"{port}"]
    lock = servers.one_at_a_time()
    lock.acquire()
    with servers.log_file("prefect-api").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", API_SERVER, *api, *options],
            env={**os.environ, **WITHOUT_SERVICES},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            # Ctrl-C reaches the whole session, and the flow needs the API to report its end.
            start_new_session=True,
        )
    # At exit, and registered before Prefect's: its last events are to arrive.
    atexit.register(server.wait)
    atexit.register(server.terminate)

    def wait() -> None:
        servers.wait_until_ready(f"{address}/health", {"prefect-api": server})
        lock.release()

    return wait


def up() -> None:
    """Start Prefect's server, one worker of the pool, and the MLflow UI; Ctrl-C stops all."""
    configure_environment()
    servers.refuse_unshared_state()
    refuse_catchup("Prefect")
    refuse_dates("Prefect")
    started = []
    if "PREFECT_API_URL" not in os.environ:
        port = os.environ["PREFECT_SERVER_API_PORT"]
        os.environ["PREFECT_API_URL"] = api = f"http://127.0.0.1:{port}/api"
        command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", port]
        started.append(Server("prefect", command, f"{api}/health", "PREFECT_SERVER_API_PORT"))
    command = [sys.executable, "-m", __spec__.name, "worker"]
    # Answers as soon as the worker has made the last deployment.
    last = f"{os.environ['PREFECT_API_URL']}/deployments/name/{PIPELINES[-1]}/{PIPELINES[-1]}"
    started.append(Server("prefect-worker", command, last))
    lock = servers.one_at_a_time()

    def addresses() -> list[tuple[str, str]]:
        lock.release()
        return [("Prefect", os.environ["PREFECT_UI_URL"])]

    # The server makes its tables as it starts.
    lock.acquire()
    servers.serve(started, addresses)


def deploy() -> None:
    """Create the work pool and the deployments of prefect.yaml, with the configured schedules."""
    root = configure_environment()
    refuse_catchup("Prefect")
    refuse_dates("Prefect")
    schedule = load_settings().schedule
    _prefect("work-pool", "create", POOL, "--type", "process", "--overwrite", cwd=root)
    for pipeline in PIPELINES:
        cron = getattr(schedule, pipeline)
        options = ["--cron", cron, "--timezone", schedule.time_zone] if cron else []
        _prefect("--no-prompt", "deploy", "--name", pipeline, *options, cwd=root)


def worker(*options: str) -> None:
    """Deploy the flows as soon as the server answers, then become a worker of the pool.

    Args:
        options: More of what `prefect worker start` takes.
    """
    configure_environment()
    servers.wait_until_ready(f"{os.environ['PREFECT_API_URL']}/health")
    deploy()
    # A process number says nothing where other machines also run flows.
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


def prefect(*arguments: str) -> None:
    """Become Prefect's command line, on the server of `poe up` unless .env names another."""
    configure_environment()
    port = os.environ["PREFECT_SERVER_API_PORT"]
    os.environ.setdefault("PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
    os.execvp("prefect", ["prefect", *arguments])


COMMANDS: dict[str, Callable[..., None]] = {
    command.__name__: command for command in (deploy, worker, again, prefect)
}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
