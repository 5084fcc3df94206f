"""Doctor's questions to Prefect: the flow files, prefect.yaml and the server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from flight_delays.orchestration.prefect import checks
from receivers import free_port, webhook

GOOD = """
from prefect import flow

@flow
def good(): ...
"""
YAML = """
deployments:
  - {name: good, entrypoint: "flows/good.py:good"}
  - {name: gone, entrypoint: "flows/gone.py:gone"}
"""


@pytest.fixture
def prefect_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project with a Prefect that knows nothing else."""
    # On a busy machine seconds prove nothing.
    monkeypatch.setattr("flight_delays.core.checks.PROCESS_SECONDS", 300.0)
    for name in os.environ:
        if name.startswith("PREFECT"):
            monkeypatch.delenv(name)
    (project / "flows").mkdir()
    return project


def test_each_flow_file_and_deployment_is_a_line(
    prefect_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (prefect_project / "flows/good.py").write_text(GOOD)
    (prefect_project / "flows/nameless.py").write_text(GOOD)
    (prefect_project / "flows/broken.py").write_text("import a_package_that_is_not_there\n")
    (prefect_project / "prefect.yaml").write_text(YAML)
    with webhook() as other:
        monkeypatch.setenv("PREFECT_SERVER_API_PORT", other.url.split(":")[2].split("/")[0])
        lines = {check.name: check for check in checks.checks()}
    assert lines["flow file good.py"].detail == "defines 'good'"
    assert "nameless" in lines["flow file nameless.py"].detail
    assert "a_package_that_is_not_there" in lines["flow file broken.py"].detail
    assert lines["deployment good"].ok
    assert "not there" in lines["deployment gone"].detail
    assert f"(process {os.getpid()}) listens on port" in lines["Prefect server"].detail
    failed = {name for name, check in lines.items() if not check.ok}
    assert failed == set(lines) - {"flow file good.py", "deployment good"}
    assert all(lines[name].fix for name in failed)


def test_a_configured_server_that_is_away_is_a_failure(
    prefect_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (prefect_project / "prefect.yaml").write_text("deployments: []")
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port()}/api")
    [check] = checks.checks()
    assert not check.ok
    assert "PREFECT_API_URL" in check.fix


def test_a_prefect_that_does_not_start_shows_its_last_lines(
    prefect_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (prefect_project / "flows/good.py").write_text(GOOD)
    monkeypatch.setenv("PREFECT_SERVER_API_PORT", "nonsense")
    with pytest.raises(RuntimeError, match="nonsense"):
        checks.checks()
