"""Doctor's questions to Dagster: the definitions, the storage and the port."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg
import pytest
from flight_delays import definitions
from flight_delays.core.checks import Check
from flight_delays.orchestration.dagster import checks
from receivers import free_port, webhook


@pytest.fixture
def dagster_home(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a Dagster that knows nothing but this project."""
    for name in os.environ:
        if name.startswith("DAGSTER"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DAGSTER_PORT", f"{free_port()}")
    return project / "var" / "dagster"


def by_name() -> dict[str, Check]:
    """Return the checks by their names."""
    return {check.name: check for check in checks.checks()}


def test_a_fresh_project_has_definitions_and_no_storage_yet(dagster_home: Path) -> None:
    lines = by_name()

    assert all(check.ok for check in lines.values())
    assert "inference, report, training" in lines["Dagster definitions"].detail
    assert "is free" in lines["Dagster UI"].detail
    assert "uv run poe up" in lines["Dagster storage"].fix


def test_what_is_broken_is_named_with_its_fix(
    dagster_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (dagster_home / "history").mkdir(parents=True)
    (dagster_home / "history" / "runs.db").write_text("this is no database, but long enough" * 99)
    schedule = dg.ScheduleDefinition(job_name="a_job_that_is_not_there", cron_schedule="0 6 * * *")
    monkeypatch.setattr(definitions, "defs", dg.Definitions(schedules=[schedule]))
    with webhook() as other:
        monkeypatch.setenv("DAGSTER_PORT", other.url.split(":")[2].split("/")[0])
        lines = by_name()

    assert f"(process {os.getpid()}) listens on port" in lines["Dagster UI"].detail
    assert "a_job_that_is_not_there" in lines["Dagster definitions"].detail
    assert "not a database" in lines["Dagster storage"].detail
    assert not any(check.ok for check in lines.values())
    assert all(check.fix for check in lines.values())
