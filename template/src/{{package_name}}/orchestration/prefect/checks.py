"""What doctor asks of Prefect: the flow files, prefect.yaml, its server, its ports.

Prefect reads its environment and takes over logging when it is imported, so the flows are loaded in
a separate process: `python -m` this module prints the checks as JSON.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ...core.checks import Check, Probe, checks_of_process, port_probe, print_checks
from ...core.paths import project_root
from .local import configure_environment


def checks() -> list[Check]:
    """Return the checks of Prefect.

    Raises:
        RuntimeError: Prefect cannot be imported or configured; holds its last lines.
        subprocess.TimeoutExpired: It took too long.
    """
    engine = checks_of_process(__name__)
    away = "start the server, or correct PREFECT_API_URL in .env; without it `poe up` starts one"
    server = (
        Probe("Prefect server", away, _configured_server)
        if os.environ.get("PREFECT_API_URL")
        else port_probe("Prefect server", "PREFECT_SERVER_API_PORT", 4200, "/api/health", "true")
    )
    return [*server.checks(), *engine]


def _configured_server() -> str:
    import httpx

    address = os.environ["PREFECT_API_URL"]
    httpx.get(f"{address}/health", timeout=5).raise_for_status()
    return f"{address} answers"


def _inspect() -> Iterator[Check]:
    from prefect.settings import Settings

    Settings()  # a bad variable is not the flows' fault
    root = project_root()
    for file in sorted((root / "flows").glob("*.py")):
        fix = f"correct flows/{file.name}: it is to define {file.stem}"
        yield from Probe(f"flow file {file.name}", fix, partial(_flow, file)).checks()
    # A team that deploys by other means may have removed it.
    if (root / "prefect.yaml").exists():
        yield from Probe("prefect.yaml", "correct the file", _deployments).checks()


def _flow(file: Path) -> str:
    from prefect.flows import load_flow_from_entrypoint

    flow: Any = load_flow_from_entrypoint(f"{file}:{file.stem}", use_placeholder_flow=False)
    return f"defines '{flow.name}'"


def _deployments() -> list[Check]:
    import yaml

    root = project_root()
    lines = []
    for entry in yaml.safe_load((root / "prefect.yaml").read_text())["deployments"]:
        name, entrypoint = f"deployment {entry['name']}", entry["entrypoint"]
        exists = (root / entrypoint.partition(":")[0]).is_file()
        detail = entrypoint if exists else f"{entrypoint} is not there"
        fix = "" if exists else "correct its entrypoint in prefect.yaml"
        lines.append(Check(name, exists, detail, fix))
    return lines


if __name__ == "__main__":
    configure_environment()
    print_checks(_inspect())
