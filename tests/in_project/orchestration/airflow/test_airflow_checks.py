"""Doctor's questions to Airflow: the database and the DAG files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from flight_delays.orchestration.airflow import checks
from receivers import webhook

GOOD = """
from airflow.sdk import dag

@dag(dag_id="good_one")
def good(): ...

good()
"""


@pytest.fixture
def airflow_home(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of an Airflow that knows nothing but this project."""
    # On a busy machine seconds prove nothing.
    monkeypatch.setattr("flight_delays.core.checks.PROCESS_SECONDS", 300.0)
    for name in os.environ:
        if name.startswith("AIRFLOW"):
            monkeypatch.delenv(name)
    (project / "dags").mkdir()
    return project / "var" / "airflow"


def test_each_dag_file_and_the_database_is_a_line(
    project: Path, airflow_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "dags/good.py").write_text(GOOD)
    (project / "dags/uncalled.py").write_text(GOOD.replace("\ngood()\n", "\n"))
    (project / "dags/broken.py").write_text("import a_package_that_is_not_there\n")
    airflow_home.mkdir(parents=True)
    (airflow_home / "airflow.db").write_text("this is no database, but it is long enough")
    with webhook() as other:
        monkeypatch.setenv("AIRFLOW__API__PORT", other.url.split(":")[2].split("/")[0])
        lines = {check.name: check for check in checks.checks()}
    assert lines["DAG file good.py"].detail == "defines 'good_one'"
    assert lines["DAG file uncalled.py"].detail == "defines no DAG"
    assert "a_package_that_is_not_there" in lines["DAG file broken.py"].detail
    assert "not a database" in lines["Airflow database"].detail
    assert f"(process {os.getpid()}) listens on port" in lines["Airflow UI"].detail
    failed = {name for name, check in lines.items() if not check.ok}
    assert failed == set(lines) - {"DAG file good.py"}
    assert all(lines[name].fix for name in failed)


def test_a_database_that_does_not_exist_yet_is_no_failure(
    project: Path, airflow_home: Path
) -> None:
    database = next(check for check in checks.checks() if check.name == "Airflow database")
    assert database.ok
    assert "uv run poe up" in database.fix


def test_an_airflow_that_does_not_start_shows_its_last_lines(
    project: Path, airflow_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "nonsense")
    with pytest.raises(RuntimeError, match="ValueError"):
        checks.checks()
