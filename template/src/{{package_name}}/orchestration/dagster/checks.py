"""What doctor asks of Dagster: its definitions, its storage, its port, its daemon."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.checks import Check, port_state
from .local import DEFINITIONS, configure_environment

if TYPE_CHECKING:
    import dagster as dg


def checks() -> list[Check]:
    """Return the checks of Dagster."""
    configure_environment()
    port = _ask(
        "Dagster UI", "stop that program, or set DAGSTER_PORT in .env to a free port", _port
    )
    return [
        port,
        _ask("Dagster definitions", "correct what is named; Dagster cannot load it", _definitions),
        *_instance(ui_runs=port.detail.startswith("already")),
    ]


def _ask(name: str, fix: str, find: Callable[[], str]) -> Check:
    try:
        return Check(name, True, find())
    except Exception as error:
        detail = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        return Check(name, False, detail, fix)


def _port() -> str:
    return port_state(int(os.environ["DAGSTER_PORT"]), "/server_info", "dagster_webserver_version")


def _definitions() -> str:
    import dagster as dg

    defs: dg.Definitions = importlib.import_module(DEFINITIONS).defs
    dg.Definitions.validate_loadable(defs)
    repository = defs.get_repository_def()
    jobs = [name for name in repository.job_names if not name.startswith("__")]
    return f"{len(repository.assets_defs_by_key)} assets; jobs {', '.join(sorted(jobs))}"


def _instance(ui_runs: bool) -> Iterator[Check]:
    import dagster as dg

    home = Path(os.environ["DAGSTER_HOME"])
    name = "Dagster storage"
    if "DAGSTER_POSTGRES_URL" not in os.environ and not (home / "history").exists():
        yield Check(name, True, "none yet", "`uv run poe run` or `uv run poe up` makes it")
        return
    try:
        with dg.DagsterInstance.get() as instance:
            yield Check(name, True, f"{instance.get_runs_count()} runs in {home}")
            # Without a daemon nothing starts by itself and nobody is told of a failure.
            if ui_runs:
                yield _daemon(instance)
    except Exception as error:
        detail = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        migrate = f"DAGSTER_HOME={home} uv run dagster instance migrate"
        yield Check(name, False, detail, f"start its database, or bring it up to date: `{migrate}`")


def _daemon(instance: dg.DagsterInstance) -> Check:
    name = "Dagster daemon"
    ill = [kind for kind, state in instance.get_daemon_statuses().items() if not state.healthy]
    if not ill:
        return Check(name, True, "running")
    fix = "stop `uv run poe up` and start it again; its log is var/log/dagster.log"
    return Check(name, False, f"not running: {', '.join(ill)}", fix)
