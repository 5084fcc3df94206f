"""What doctor asks of Airflow: its database, the DAG files, its port.

Airflow reads its environment and takes over logging when it is imported, so all this happens in a
process of its own: `python -m` this module prints the checks as JSON.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ...core.checks import Check, checks_of_process, port_state, print_checks
from .local import configure_environment


def checks() -> list[Check]:
    """Return the checks of Airflow.

    Raises:
        RuntimeError: Airflow cannot be imported or configured; holds its last lines.
        subprocess.TimeoutExpired: It took too long.
    """
    engine = checks_of_process(__name__)
    return [_port(), *engine]


def _port() -> Check:
    port = os.environ.get("AIRFLOW__API__PORT", "8080")
    try:
        state = port_state(int(port), "/api/v2/monitor/health", "metadatabase")
    except (OSError, ValueError) as error:
        fix = "stop that program, or set AIRFLOW__API__PORT in .env to a free port"
        return Check("Airflow UI", False, f"{error}", fix)
    return Check("Airflow UI", True, state)


def _inspect() -> Iterator[Check]:
    yield _database()
    yield from _dags()


def _database() -> Check:
    from airflow import settings
    from airflow.utils.db import check, check_migrations
    from sqlalchemy.engine import make_url

    name = "Airflow database"
    url = make_url(settings.SQL_ALCHEMY_CONN or "")
    if url.drivername.startswith("sqlite") and not Path(str(url.database)).exists():
        return Check(name, True, "none yet", "`uv run poe run` or `uv run poe up` makes it")
    try:
        check()
        check_migrations(timeout=0)  # type: ignore[no-untyped-call]
    except Exception as error:
        detail = f"{type(error).__name__}: {error}".splitlines()[0]
        fix = "start the database; `uv run poe up` brings it up to date"
        return Check(name, False, detail, fix)
    return Check(name, True, url.render_as_string(hide_password=True))


def _dags() -> Iterator[Check]:
    from airflow.dag_processing.dagbag import DagBag

    folder = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    bag = DagBag(folder, safe_mode=False)
    homes = {Path(dag.fileloc).name: dag_id for dag_id, dag in bag.dags.items()}
    errors = {Path(file).name: error for file, error in bag.import_errors.items()}
    for file in sorted(folder.glob("*.py")):
        name = f"DAG file {file.name}"
        if file.name in errors:
            detail = errors[file.name].strip().splitlines()[-1]
            yield Check(name, False, detail, f"correct dags/{file.name}; Airflow cannot import it")
        elif file.name not in homes:
            yield Check(name, False, "defines no DAG", "call the function under @dag in that file")
        else:
            yield Check(name, True, f"defines '{homes[file.name]}'")


if __name__ == "__main__":
    configure_environment()
    print_checks(_inspect())
