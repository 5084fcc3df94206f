"""What Ctrl-C does to a flow that runs in this process: recorded and closed, nobody is told."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import sandbox
from flight_delays.core import stage
from flight_delays.core.errors import Terminated
from flight_delays.orchestration.prefect import tasks
from flight_delays.orchestration.prefect.local import API_SERVER
from prefect.states import Crashed


@pytest.mark.parametrize(
    ("number", "told"),
    [(signal.SIGINT, []), (signal.SIGTERM, ["alert"])],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_who_pressed_ctrl_c_is_not_alerted(
    project: Path, monkeypatch: pytest.MonkeyPatch, number: int, told: list[str]
) -> None:
    done: list[str] = []
    flow_run: Any = SimpleNamespace(id="1", deployment_id=None)
    client = mock.MagicMock()
    client.return_value.__enter__.return_value.read_flow_run.return_value = flow_run
    monkeypatch.setattr(tasks, "get_client", client)
    monkeypatch.setattr(tasks, "wanted_partition", lambda _: sandbox.PARTITION)
    monkeypatch.setattr(tasks, "alert_failure", lambda *_: done.append("alert"))
    monkeypatch.setattr(tasks, "run_stage", lambda name, *_: done.append(name))

    flow: Any = SimpleNamespace(name="training")
    tasks.recover_crash(flow, flow_run, Crashed(message="interrupted", data=Terminated(number)))
    assert done == [*told, "start", "report"]


@pytest.mark.parametrize(
    ("error", "number"),
    [(Terminated(signal.SIGINT), signal.SIGINT), (SystemExit(), signal.SIGTERM)],
    ids=["ours", "another"],
)
def test_what_works_in_threads_is_recorded_as_ended_by_the_same_signal(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, number: int
) -> None:
    ended: list[Terminated] = []
    monkeypatch.setattr(stage, "end_running", ended.append)
    monkeypatch.setattr(tasks, "report", lambda _: None)
    with pytest.raises(type(error)), tasks.reported({}):
        raise error
    assert [one.number for one in ended] == [number]


def test_the_api_server_of_a_run_ends_with_the_process_that_started_it() -> None:
    """It is out of reach of Ctrl-C, since the flow's last words need it."""
    command = [sys.executable, "-c", API_SERVER, "builtins:dict", "--port", "0"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert done.returncode == -signal.SIGTERM
