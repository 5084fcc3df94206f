"""What doctor asks of Airflow: its database, the DAG files, its port.

Airflow reads its environment and takes over logging when it is imported, so all this happens in a
separate process: `python -m` this module prints the checks as JSON.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ...core.checks import Check, Probe, checks_of_process, port_probe, print_checks
from .local import configure_environment

UI = port_probe("Airflow UI", "AIRFLOW__API__PORT", 8080, "/api/v2/monitor/health", "metadatabase")


def checks() -> list[Check]:
    """Return the checks of Airflow.

    Raises:
        RuntimeError: Airflow cannot be imported or configured; holds its last lines.
        subprocess.TimeoutExpired: It took too long.
    """
    return [*UI.checks(), *checks_of_process(__name__)]


def _database() -> str | list[Check]:
    from airflow import settings
    from airflow.utils.db import check, check_migrations
    from sqlalchemy.engine import make_url

    url = make_url(settings.SQL_ALCHEMY_CONN or "")
    if url.drivername.startswith("sqlite") and not Path(str(url.database)).exists():
        make = "`uv run poe run` or `uv run poe up` makes it"
        return [Check("Airflow database", True, "none yet", make)]
    check()
    check_migrations(timeout=0)  # type: ignore[no-untyped-call]
    return url.render_as_string(hide_password=True)


def _dags() -> Iterator[Check]:
    from airflow.dag_processing.dagbag import DagBag

    folder = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    bag = DagBag(folder, safe_mode=False)
    homes = {Path(dag.fileloc).name: dag_id for dag_id, dag in bag.dags.items()}
    errors = {Path(file).name: error for file, error in bag.import_errors.items()}
    for name in sorted(file.name for file in folder.glob("*.py")):
        if name in homes:
            yield Check(f"DAG file {name}", True, f"defines '{homes[name]}'")
        else:
            # The last line of a traceback says why.
            detail = errors.get(name, "defines no DAG").strip().splitlines()[-1]
            fix = f"correct dags/{name}, and call the function under @dag in it"
            yield Check(f"DAG file {name}", False, detail, fix)


if __name__ == "__main__":
    configure_environment()
    fix = "start the database; `uv run poe up` brings it up to date"
    print_checks([*Probe("Airflow database", fix, _database).checks(), *_dags()])
