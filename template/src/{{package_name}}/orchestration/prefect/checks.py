"""What doctor asks of Prefect: the flow files, prefect.yaml, its server, its ports.

Prefect reads its environment and takes over logging when it is imported, so the flows are loaded in
a process of its own: `python -m` this module prints the checks as JSON.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...core.checks import Check, checks_of_process, port_state, print_checks
from ...core.paths import project_root
from .local import configure_environment


def checks() -> list[Check]:
    """Return the checks of Prefect.

    Raises:
        RuntimeError: Prefect cannot be imported or configured; holds its last lines.
        subprocess.TimeoutExpired: It took too long.
    """
    engine = checks_of_process(__name__)
    return [_server(), *engine]


def _server() -> Check:
    if address := os.environ.get("PREFECT_API_URL"):
        return _configured_server(address)
    port = os.environ.get("PREFECT_SERVER_API_PORT", "4200")
    try:
        state = port_state(int(port), "/api/health", "true")
    except (OSError, ValueError) as error:
        fix = "stop that program, or set PREFECT_SERVER_API_PORT in .env to a free port"
        return Check("Prefect server", False, f"{error}", fix)
    return Check("Prefect server", True, state)


def _configured_server(address: str) -> Check:
    import httpx

    name = "Prefect server"
    try:
        httpx.get(f"{address}/health", timeout=5).raise_for_status()
    except httpx.HTTPError as error:
        fix = "start the server, or correct PREFECT_API_URL in .env; without it `poe up` starts one"
        return Check(name, False, f"{address}: {error}", fix)
    return Check(name, True, f"{address} answers")


def _inspect() -> Iterator[Check]:
    from prefect.settings import Settings

    Settings()  # a bad variable is no fault of the flows
    root = project_root()
    for file in sorted((root / "flows").glob("*.py")):
        yield _flow(file)
    yield from _deployments(root)


def _flow(file: Path) -> Check:
    from prefect.flows import load_flow_from_entrypoint

    name = f"flow file {file.name}"
    try:
        flow: Any = load_flow_from_entrypoint(f"{file}:{file.stem}", use_placeholder_flow=False)
    except Exception as error:
        detail = f"{type(error).__name__}: {error}".strip().splitlines()[-1]
        return Check(name, False, detail, f"correct flows/{file.name}: it is to define {file.stem}")
    return Check(name, True, f"defines '{flow.name}'")


def _deployments(root: Path) -> Iterator[Check]:
    import yaml

    file = root / "prefect.yaml"
    # Who deploys by other means may have removed it.
    if not file.exists():
        return
    try:
        entries = yaml.safe_load(file.read_text())["deployments"]
        entrypoints = {entry["name"]: entry["entrypoint"] for entry in entries}
    except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
        yield Check("prefect.yaml", False, f"{type(error).__name__}: {error}", "correct the file")
        return
    for name, entrypoint in entrypoints.items():
        exists = (root / entrypoint.partition(":")[0]).is_file()
        detail = entrypoint if exists else f"{entrypoint} is not there"
        fix = "" if exists else "correct its entrypoint in prefect.yaml"
        yield Check(f"deployment {name}", exists, detail, fix)


if __name__ == "__main__":
    configure_environment()
    print_checks(_inspect())
