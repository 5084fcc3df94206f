"""The shell is not ours: what it names of others is left alone, and what is ours is private."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from unittest import mock

import pytest
from flight_delays.core.errors import BadInput
from flight_delays.orchestration import servers


@pytest.mark.parametrize(
    ("value", "inside"),
    [
        ("{root}/var/engine", True),
        ("{root}", True),
        ("sqlite:///{root}/var/engine.db", True),
        ("sqlite+aiosqlite:///{root}/var/engine.db", True),
        ("{root}-of-somebody/var", False),
        ("var/engine", False),
        ("postgresql://user@host/database", False),
        ("http://127.0.0.1:4200/api", False),
    ],
)
def test_what_lies_in_the_project_is_the_projects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, inside: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    assert servers._is_inside(value.format(root=tmp_path), tmp_path) is inside


def test_a_container_names_the_project_and_what_else_it_likes(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENGINE_HOME", "/opt/engine")
    assert servers.base_environment("ENGINE_", "ENGINE_HOME") == project
    assert os.environ["ENGINE_HOME"] == "/opt/engine"
    assert capsys.readouterr().err == ""


def test_state_and_logs_are_their_owners_alone(project: Path) -> None:
    before = os.umask(0)
    try:
        servers.base_environment()
        log = servers.log_file("engine")
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (project / "var", log.parent)] == [
        0o700,
        0o700,
    ]


def test_the_server_of_mlflow_has_the_projects_registry(
    tracked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the command names it, MLflow takes what `MLFLOW_REGISTRY_STORE_URI` names."""
    monkeypatch.setattr("flight_delays.core.tracking.client", mock.Mock())
    _, [server] = servers._mlflow()
    uri = f"sqlite:///{tracked}/var/mlflow/mlflow.db"
    stores = " ".join(server.command)
    assert f"--backend-store-uri {uri} --registry-store-uri {uri}" in stores


def test_an_expected_error_is_one_sentence(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    servers.base_environment()
    error = BadInput("'tomorrow' is no day")
    sys.excepthook(BadInput, error, None)
    assert capsys.readouterr().err == "error: 'tomorrow' is no day\n"
