"""How a task ends that Airflow terminates, and what Airflow cannot take."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import sandbox
from flight_delays.core import ending, storage
from flight_delays.core.errors import Terminated
from flight_delays.core.records import read_records
from flight_delays.orchestration.airflow import local, tasks
from flight_delays.stages import run_stage


def test_a_task_that_is_terminated_ends_although_airflows_handler_lets_it_go_on(
    tracked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tasks.SLUG
    assert ending.over_handlers
    called: list[int] = []
    run = run_stage("start", "training", sandbox.PARTITION, "task")

    def terminate(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(storage, "write_dataset", terminate)
    before = signal.signal(signal.SIGTERM, lambda number, _: called.append(number))
    try:
        with pytest.raises(Terminated):
            run_stage("ingest", run)
    finally:
        signal.signal(signal.SIGTERM, before)
    # Airflow's handler, which tells the operator.
    assert called == [signal.SIGTERM]
    [record] = read_records("task")
    assert record.exit_code == 143
    assert "SIGTERM ended the run in ingest" in f"{record.error}"


def test_a_percent_sign_in_airflows_folder_is_refused_with_a_sentence(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(project / "100%" / "airflow"))
    with pytest.raises(SystemExit, match="Airflow takes no % in its folder's path: move /"):
        local.configure_environment()
