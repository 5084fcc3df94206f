"""What listens for other machines does so only where it has to."""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any
from unittest import mock

import pytest

from ..support.template import Render


@pytest.mark.parametrize(
    ("broker", "quiet"),
    [
        ("redis://localhost:6379/0", True),
        ("redis://:secret@127.0.0.1:6379/0", True),
        ("redis://[::1]:6379/0", True),
        ("rediss://:secret@first-machine:6379/0", False),
        ("redis://10.0.0.5:6379/0", False),
    ],
)
def test_airflows_worker_serves_logs_only_to_a_ui_elsewhere(
    render: Render, monkeypatch: pytest.MonkeyPatch, broker: str, quiet: bool
) -> None:
    """Airflow's server of logs listens on all addresses, and has no setting for that."""
    project = render(orchestrator="airflow", workers="distributed", tracking="mlflow_remote")
    [file] = project.glob("src/*/orchestration/airflow/workers.py")
    # Neither the project nor Airflow is installed here.
    for name in ("team", "team.engine", "team.engine.local"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for module, name in (("team", "servers"), ("team.engine.local", "configure_environment")):
        monkeypatch.setattr(sys.modules[module], name, mock.Mock(), raising=False)
    monkeypatch.setattr(sys.modules["team.engine.local"], "PRELOADED", ["airflow"], raising=False)
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _, command: started.append(command))
    monkeypatch.setenv("AIRFLOW__CELERY__BROKER_URL", broker)
    source = compile(file.read_text(), f"{file}", "exec")
    scope: dict[str, Any] = {"__name__": "team.engine.workers", "__package__": "team.engine"}
    exec(source, scope)
    scope["worker"]()

    [command] = started
    assert command[:3] == ["airflow", "celery", "worker"]
    assert ("--skip-serve-logs" in command) is quiet
