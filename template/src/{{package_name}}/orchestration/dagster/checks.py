"""What doctor asks of Dagster: its definitions, its storage, its port, its daemon."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.checks import Check, port_state
from .instance import configure_environment

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

    from ... import definitions

    dg.Definitions.validate_loadable(definitions.defs)
    repository = definitions.defs.get_repository_def()
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
            # Without a daemon nothing starts by itself and no failure is alerted.
            if ui_runs:
                yield _daemon(instance)
    except Exception as error:
        detail = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        migrate = f"DAGSTER_HOME={home} uv run dagster instance migrate"
        yield Check(name, False, detail, f"start its database, or bring it up to date: `{migrate}`")


def _daemon(instance: dg.DagsterInstance) -> Check:
    name = "Dagster daemon"
    statuses = instance.get_daemon_statuses().items()
    stopped = [kind for kind, status in statuses if not status.healthy]
    if not stopped:
        return Check(name, True, "running")
    fix = "stop `uv run poe up` and start it again; its log is var/log/dagster.log"
    return Check(name, False, f"not running: {', '.join(stopped)}", fix)
