"""Servers of this machine: start them together, wait until they answer, stop them together."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, TypeAlias

from rich import box
from rich.console import Console
from rich.table import Table

from ..core import tracking
from ..core.errors import SettingsError
from ..core.paths import project_root
from ..core.settings import load_environment
from ..core.shared_state import require_shared_state

Children: TypeAlias = dict[str, subprocess.Popen[bytes]]

out = Console()
READY_WITHIN_SECONDS = 180


@dataclass(frozen=True)
class Server:
    """A program that runs until it is stopped.

    Attributes:
        name: What people call it; its output goes to var/log/NAME.log.
        command: Program and arguments.
        health: Address that answers 200 once it is ready; nothing is waited for when None.
        port: The port it needs on this machine.
        port_variable: The variable that sets another port.
        environment: Variables of this program only.
    """

    name: str
    command: Sequence[str]
    health: str | None = None
    port: int | None = None
    port_variable: str = ""
    environment: dict[str, str] = field(default_factory=dict)


def base_environment() -> Path:
    """Set what every engine's processes need, where the environment does not say otherwise.

    Returns:
        The project's root.
    """
    load_environment()
    root = project_root()
    os.environ.setdefault("PIPELINE_HOME", str(root))
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    # Engines start their own commands by name.
    folder = str(Path(sys.executable).parent)
    if folder not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return root


def refuse_unshared_state() -> None:
    """End with a sentence where workers would not find each other's results.

    Raises:
        SystemExit: See `require_shared_state`.
    """
    try:
        require_shared_state()
    except SettingsError as error:
        raise SystemExit(f"error: {error}") from None


def require_variables(names: Iterable[str]) -> None:
    """Check that this machine can talk to the others.

    Raises:
        SettingsError: A variable is not set.
    """
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise SettingsError(f"set in .env, as .env.example shows: {', '.join(missing)}")


def mlflow() -> list[Server]:
    """Return MLflow with its UI on the project's own store; nothing where a server is configured.

    Creates the store, before two processes could race for it.
    """
    if tracking.tracking_uri().startswith("http"):
        return []
    tracking.client().search_experiments()
    port = os.environ.setdefault("MLFLOW_PORT", "5000")
    command = ["mlflow", "server", "--backend-store-uri", tracking.tracking_uri(), "--port", port]
    return [
        Server(
            "mlflow",
            command,
            health=f"{mlflow_address()}/health",
            port=int(port),
            port_variable="MLFLOW_PORT",
            # Its job runner would cost eight more processes.
            environment={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )
    ]


def mlflow_address() -> str:
    """Return where MLflow's UI is."""
    uri = tracking.tracking_uri()
    return uri if uri.startswith("http") else f"http://127.0.0.1:{os.environ['MLFLOW_PORT']}"


def serve(
    servers: Sequence[Server], addresses: Callable[[], Iterable[tuple[str, str]]], title: str
) -> None:
    """Start servers, show where they are, and run until Ctrl-C, SIGTERM or the end of one.

    Each has a session of its own, so that a signal reaches all its children.

    Args:
        servers: What to start, in this order.
        addresses: Returns what to show once all are ready: a label and an address a row.
        title: What is being started, for the progress line.

    Raises:
        SystemExit: A port is taken, a server does not become ready, or one stopped by itself.
    """
    logs = project_root() / "var" / "log"
    logs.mkdir(parents=True, exist_ok=True)
    for server in servers:
        if server.port is not None:
            _require_free_port(server.port, server.port_variable)
    # A termination must reach the children as an interrupt does.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    children: Children = {}
    try:
        for server in servers:
            children[server.name] = _spawn(server, logs / f"{server.name}.log")
        with out.status(f"starting {title} (about half a minute)…"):
            for server in servers:
                if server.health is not None:
                    _wait_until_ready(server.health, children, logs)
        table = Table(box=box.ROUNDED, show_header=False, title="Ctrl-C stops everything")
        for label, address in (*addresses(), ("logs", str(logs))):
            table.add_row(label, address)
        out.print(table)
        while all(child.poll() is None for child in children.values()):
            time.sleep(1)
        _fail_with_log(children, logs)
    except KeyboardInterrupt:
        out.print("stopping…")
    finally:
        _stop(children.values())
    out.print("stopped")


def _spawn(server: Server, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as stream:
        return subprocess.Popen(
            server.command,
            env={**os.environ, **server.environment},
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
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
            if httpx.get(url, timeout=2, trust_env=False).status_code == 200:
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
