"""What `poe up` starts of Airflow, without starting it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout
from flight_delays.orchestration import servers
from flight_delays.orchestration.airflow import local
from flight_delays.orchestration.servers import Server

Addresses = Callable[[], Iterable[tuple[str, str]]]


@pytest.fixture
def migration(project: Path, monkeypatch: pytest.MonkeyPatch) -> subprocess.CompletedProcess[str]:
    """Return how the migration of the database ends."""
    for name in os.environ:
        if name.startswith("AIRFLOW"):
            monkeypatch.delenv(name)
    ended = subprocess.CompletedProcess(["airflow"], 0, "", "")

    def run(*command: Any, **options: Any) -> subprocess.CompletedProcess[str]:
        assert others_wait(project)
        return ended

    monkeypatch.setattr(f"{local.__name__}.subprocess.run", run)
    return ended


def others_wait(project: Path) -> bool:
    """Return whether this process is the one that may make Airflow's tables."""
    lock = FileLock(project / "var" / "engine.lock", is_singleton=False)
    assert servers.one_at_a_time().lock_file == lock.lock_file
    try:
        lock.acquire(blocking=False)
    except (Timeout, RuntimeError):
        return True
    lock.release()
    return False


def started(monkeypatch: pytest.MonkeyPatch) -> tuple[list[Server], dict[str, str]]:
    """Return what `poe up` would start, and the addresses that it would show."""
    found: list[Server] = []
    shown: dict[str, str] = {}

    def serve(servers: Sequence[Server], addresses: Addresses) -> None:
        found.extend(servers)
        shown.update(addresses())

    monkeypatch.setattr(f"{local.__name__}.servers.serve", serve)
    local.up()
    return found, shown


@pytest.mark.usefixtures("migration")
def test_no_part_serves_logs_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, _ = started(monkeypatch)
    assert {part.name: part.command[1:] for part in parts} == {
        "airflow-api-server": ["api-server"],
        "airflow-scheduler": [*local.PRELOADED[1:], "scheduler", "--skip-serve-logs"],
        "airflow-dag-processor": ["dag-processor"],
        "airflow-triggerer": ["triggerer", "--skip-serve-logs"],
    }
    assert os.environ["AIRFLOW__API__HOST"] == "127.0.0.1"


def test_tasks_find_libraries_imported_but_nothing_that_a_team_changes() -> None:
    """A task takes the code and the settings as they are when it begins."""
    package = local.__name__.partition(".")[0]
    code = f"import sys, {local.PRELOADED[2]}; from {package}.core.settings import load_settings; "
    code += "print(*sys.modules, load_settings.cache_info().currsize)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *imported, settings = done.stdout.split()
    assert {"mlflow.sklearn", "sklearn.ensemble", "optuna", "pandera.polars"} <= {*imported}
    rooms = {name.split(".")[1] for name in imported if name.startswith(f"{package}.")}
    # MLflow has an entry point in core/.
    assert rooms == {"core", "orchestration"}
    assert settings == "0"


@pytest.mark.usefixtures("migration")
def test_the_password_is_its_owner_s_alone_and_stays(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, shown = started(monkeypatch)
    file = project / "var" / "airflow" / local.PASSWORDS
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    user, password = shown["  log in as"].split(" / ")
    assert user == "admin"
    assert len(password) >= 16
    assert started(monkeypatch)[1] == shown


@pytest.mark.usefixtures("migration")
def test_who_has_another_log_in_is_shown_no_password(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "true")
    assert list(started(monkeypatch)[1]) == ["Airflow"]


def test_a_database_that_cannot_be_migrated_is_a_sentence(
    migration: subprocess.CompletedProcess[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    migration.returncode = 1
    with pytest.raises(SystemExit, match=r"up to date: see .*var/log/airflow-database\.log"):
        started(monkeypatch)


def test_of_two_first_runs_one_makes_the_tables(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[bool] = []

    def check(timeout: int) -> None:
        if not made:
            raise TimeoutError

    local.configure_environment()
    monkeypatch.setattr("airflow.utils.db.check_migrations", check)
    monkeypatch.setattr("airflow.utils.db.initdb", lambda: made.append(others_wait(project)))
    local.make_tables()
    local.make_tables()
    assert made == [True]
    assert not others_wait(project)
