"""Servers of this machine: start them together, wait until they answer, stop them together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

from filelock import FileLock
from rich.console import Console

from ..core import tracking
from ..core.errors import PipelineError, SettingsError
from ..core.logs import console
from ..core.paths import make_state_folder, project_root
from ..core.ports import require_free
from ..core.settings import load_environment
from ..core.shared_state import require_shared_state

Children: TypeAlias = Mapping[str, subprocess.Popen[bytes]]

out = Console()
READY_WITHIN_SECONDS = 180


@dataclass(frozen=True)
class Server:
    """A program that runs until it is stopped; its output goes to var/log/NAME.log.

    Attributes:
        health: Address that answers 200 once it is ready; nothing is waited for when None.
        port_variable: The variable that holds the port it needs on this machine.
    """

    name: str
    command: Sequence[str]
    health: str | None = None
    port_variable: str | None = None


def base_environment(prefix: str = "", *state: str) -> Path:
    """Set what every engine's processes need where it is not set, and return the project's root.

    Args:
        prefix: What the engine's variables begin with.
        state: How those begin that say where it keeps its state. Where the shell names another
            deployment's, none of its variables count: only .env can name state elsewhere, or a
            container that also sets PIPELINE_HOME.
    """
    sys.excepthook = _in_one_sentence
    root = project_root()
    if "PIPELINE_HOME" not in os.environ:
        _leave_alone(root, prefix, state)
    load_environment()
    make_state_folder(root)
    os.environ.setdefault("PIPELINE_HOME", str(root))
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    # Engines start their own commands by name.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return root


def one_at_a_time() -> FileLock:
    """Return the lock under which an engine makes its tables; others of this project wait for it.

    Engines look and then make them: if two do so at once, one breaks, or the tables stay broken.
    """
    return FileLock(project_root() / "var" / "engine.lock")


def _leave_alone(root: Path, prefix: str, state: tuple[str, ...]) -> None:
    """Forget an engine's variables where some name another deployment's state."""
    from dotenv import dotenv_values

    ours = dotenv_values(root / ".env")
    names = [
        name
        for name in os.environ
        if prefix and name.startswith(prefix) and os.environ[name] != ours.get(name)
    ]
    foreign = [
        name for name in names if name.startswith(state) and not _is_inside(os.environ[name], root)
    ]
    if not foreign:
        return
    console().print(
        f"{', '.join(foreign)} of this shell: another deployment's, which is left alone; "
        "to use it for this project, set it in .env",
        soft_wrap=True,
    )
    for name in names:
        del os.environ[name]


def _is_inside(value: str, root: Path) -> bool:
    """Return whether a path, or the file of an SQLite address, is in a folder."""
    path = Path(value.rpartition(":///")[2])
    return path.is_absolute() and path.resolve().is_relative_to(root)


def _in_one_sentence(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Show an expected error without its traceback."""
    if isinstance(error, PipelineError):
        console().print(f"error: {error}", markup=False, highlight=False)
    else:
        sys.__excepthook__(kind, error, trace)


def refuse_unshared_state(variables: Iterable[str] = ()) -> None:
    """End with a sentence where a variable is missing, or workers would not share their results."""
    missing = [name for name in variables if not os.environ.get(name)]
    if missing:
        raise SystemExit(f"error: set in .env, as .env.example shows: {', '.join(missing)}")
    try:
        require_shared_state()
    except SettingsError as error:
        raise SystemExit(f"error: {error}") from None


def serve(servers: Sequence[Server], addresses: Callable[[], Iterable[tuple[str, str]]]) -> None:
    """Start servers and MLflow, and run until Ctrl-C, SIGTERM or the end of one of them.

    Each has its own session, so that a signal reaches all its children.

    Args:
        servers: What to start, in this order.
        addresses: Returns what to show once all are ready: one label and address per row.

    Raises:
        SystemExit: A port is taken, a server does not become ready, or one stopped by itself.
    """
    mlflow, store = _mlflow()
    servers = [*servers, *store]
    for server in servers:
        if server.port_variable:
            require_free(int(os.environ[server.port_variable]), server.port_variable)
    # A termination must reach the children as an interrupt does.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    children: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for server in servers:
            with log_file(server.name).open("wb") as log:
                children[server.name] = subprocess.Popen(
                    server.command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
                )
        with out.status(f"starting {', '.join(children)} (about half a minute)…"):
            for server in servers:
                if server.health is not None:
                    wait_until_ready(server.health, children)
        for label, address in (*addresses(), ("MLflow", mlflow), ("logs", "var/log/")):
            # In one piece, to be copied.
            out.print(f"{label:<13} {address}", soft_wrap=True, highlight=False)
        if children:
            out.print("Ctrl-C stops everything")
        while children:
            _require_running(children)
            time.sleep(1)
    except KeyboardInterrupt:
        out.print("stopping…")
    finally:
        _stop(children.values())


def _mlflow() -> tuple[str, list[Server]]:
    """Return where MLflow's UI is, and its server unless one is configured."""
    uri = tracking.tracking_uri()
    if uri.startswith("http"):
        return uri, []
    # Creates the store, before two processes could race for it.
    tracking.client().search_experiments()
    # Its job runner would cost eight more processes.
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    port = os.environ.setdefault("MLFLOW_PORT", "5000")
    address = f"http://127.0.0.1:{port}"
    # Each of them may be another deployment's in the shell.
    stores = ["--backend-store-uri", uri, "--registry-store-uri", uri]
    # One process shows pages to those of this machine; each more costs seconds and 200 MB.
    command = ["mlflow", "server", *stores, "--port", port, "--workers", "1"]
    return address, [Server("mlflow", command, f"{address}/health", "MLFLOW_PORT")]


def log_file(name: str) -> Path:
    """Return where a program's output goes; the folder is there."""
    folder = project_root() / "var" / "log"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / f"{name}.log"


def wait_until_ready(url: str, children: Children | None = None) -> None:
    """Wait until an address answers 200, as long as some processes run.

    Raises:
        SystemExit: It does not in time, or one of the processes ended.
    """
    import httpx

    deadline = time.monotonic() + READY_WITHIN_SECONDS
    while time.monotonic() < deadline:
        _require_running(children or {})
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=2, trust_env=False).status_code == 200:
                return
        time.sleep(0.2)
    raise SystemExit(f"{url} did not answer within {READY_WITHIN_SECONDS} s: see var/log")


def _require_running(children: Children) -> None:
    for name, child in children.items():
        if child.poll() is not None:
            log = log_file(name)
            out.print("\n".join(log.read_text(errors="replace").splitlines()[-30:]), markup=False)
            raise SystemExit(f"{name} stopped by itself, its last lines are above; all: {log}")


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
