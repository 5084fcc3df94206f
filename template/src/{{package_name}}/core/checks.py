"""One line of what `doctor` reports, and helpers that its checks share."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass

_PROCESS_SECONDS = 14.0


@dataclass(frozen=True)
class Check:
    """One line of the result; a check that passed and still has a `fix` is advice."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


def checks_of_process(module: str) -> list[Check]:
    """Return the checks that `python -m` a module prints as JSON in its last line.

    Engines read the environment and take over logging when they are imported.

    Raises:
        RuntimeError: The process failed; holds its last lines.
        subprocess.TimeoutExpired: It took too long.
    """
    done = subprocess.run(
        [sys.executable, "-m", module],
        capture_output=True,
        text=True,
        timeout=_PROCESS_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip()[-400:])
    return [Check(**fields) for fields in json.loads(done.stdout.splitlines()[-1])]


def print_checks(checks: Iterable[Check]) -> None:
    """Print checks for `checks_of_process`."""
    print(json.dumps([asdict(check) for check in checks]))


def port_state(port: int, health: str, answer: str) -> str:
    """Return whether a port of this machine is free or already served by the expected program.

    Args:
        port: The port.
        health: Path of that program's health page.
        answer: Text that only its health page holds.

    Raises:
        OSError: Another program listens there.
    """
    import httpx

    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex(("127.0.0.1", port)) != 0:
            return f"port {port} is free"
    try:
        page = httpx.get(f"http://127.0.0.1:{port}{health}", timeout=3, trust_env=False).text
    except httpx.HTTPError:
        page = ""
    if answer not in page:
        raise OSError(f"another program listens on port {port}")
    return f"already running on port {port}"
