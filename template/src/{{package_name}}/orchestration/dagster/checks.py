"""What doctor asks of Dagster: its definitions, its storage, its port, its daemon."""

from __future__ import annotations

import os
from pathlib import Path

from ...core.checks import Check, Probe, port_probe
from .instance import configure_environment

UI = port_probe("Dagster UI", "DAGSTER_PORT", 3000, "/server_info", "dagster_webserver_version")


def checks() -> list[Check]:
    """Return the checks of Dagster."""
    configure_environment()
    (ui,) = UI.checks()
    load = "correct what is named; Dagster cannot load it"
    storage = "start its database, or update it: `uv run poe dagster instance migrate`"
    lines = [
        ui,
        *Probe("Dagster definitions", load, _definitions).checks(),
        *Probe("Dagster storage", storage, _storage).checks(),
    ]
    # Without a daemon no schedule or sensor starts a run, and no failure is alerted.
    if ui.detail.startswith("already") and lines[-1].ok:
        restart = "stop `uv run poe up` and start it again; its log is var/log/dagster.log"
        lines += Probe("Dagster daemon", restart, _daemon).checks()
    return lines


def _definitions() -> str:
    import dagster as dg

    from ... import definitions

    dg.Definitions.validate_loadable(definitions.defs)
    repository = definitions.defs.get_repository_def()
    jobs = [name for name in repository.job_names if not name.startswith("__")]
    return f"{len(repository.assets_defs_by_key)} assets; jobs {', '.join(sorted(jobs))}"


def _storage() -> str | list[Check]:
    import dagster as dg

    home = Path(os.environ["DAGSTER_HOME"])
    if "DAGSTER_POSTGRES_URL" not in os.environ and not (home / "history").exists():
        make = "`uv run poe run` or `uv run poe up` makes it"
        return [Check("Dagster storage", True, "none yet", make)]
    with dg.DagsterInstance.get() as instance:
        return f"{instance.get_runs_count()} runs in {home}"


def _daemon() -> str:
    import dagster as dg

    with dg.DagsterInstance.get() as instance:
        statuses = instance.get_daemon_statuses().items()
    stopped = [kind for kind, status in statuses if not status.healthy]
    if stopped:
        raise RuntimeError(f"not running: {', '.join(stopped)}")
    return "running"
