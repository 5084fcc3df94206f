"""The project's MLflow store: made once, whole or not at all, and moved with the project."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import sandbox
from flight_delays.core import mlflow_store, tracking
from flight_delays.core.errors import StoreError
from flight_delays.core.mlflow_store import open_store
from flight_delays.pipeline import execute
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS
from sandbox import Trained

OPEN = "import sys; from pathlib import Path; from flight_delays.core import mlflow_store; "
OPEN += "mlflow_store.open_store(Path(sys.argv[1]))"


def experiments(file: Path) -> int:
    with sqlite3.connect(file) as database:
        (count,) = database.execute("SELECT count(*) FROM experiments").fetchone()
    return int(count)


def opening(file: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", OPEN, file], stderr=subprocess.DEVNULL)


def test_first_runs_at_once_make_one_store(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"

    several = [opening(file) for _ in range(3)]

    assert [one.wait() for one in several] == [0, 0, 0]
    assert experiments(file) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


def test_a_process_killed_while_it_makes_the_store_leaves_none(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    killed = opening(file)
    while not list(tmp_path.glob("new-store-*/mlflow.db")):
        assert killed.poll() is None
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not file.exists()

    open_store(file)

    assert experiments(file) == 1
    assert not list(tmp_path.glob("new-store-*"))


@pytest.mark.parametrize("content", [b"", None])
def test_a_store_that_was_never_finished_is_made_again_and_kept_aside(
    content: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "mlflow.db"
    if content is None:
        with sqlite3.connect(file) as database:
            database.execute("CREATE TABLE metrics (key TEXT)")
    else:
        file.write_bytes(content)

    open_store(file)

    assert experiments(file) == 1
    aside = [path.name for path in tmp_path.glob("mlflow.db.half-made-*")]
    assert len(aside) == (content != b"")
    for name in aside:
        assert f"holds no runs: it is now {name}" in caplog.text


def test_a_store_that_holds_runs_is_never_replaced(tables: Path, tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    shutil.copy(tables, file)
    with sqlite3.connect(file) as database:
        database.execute("INSERT INTO runs (run_uuid, experiment_id) VALUES ('one', 0)")
        database.execute("UPDATE alembic_version SET version_num = 'of the future'")

    with pytest.raises(StoreError, match="holds 1 runs, and MLflow cannot read it") as refused:
        open_store(file)

    assert f"mlflow db upgrade sqlite:///{file}" in str(refused.value)
    assert experiments(file) == 1


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_store_that_is_damaged_is_never_replaced(size: int, tables: Path, tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    file.write_bytes(tables.read_bytes()[:size])
    with pytest.raises(StoreError, match=f"{file} is damaged .*put a copy of it back"):
        open_store(file)
    assert file.stat().st_size == size


def test_a_store_that_another_program_holds_is_left_where_it_is(
    tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mlflow.db"
    shutil.copy(tables, file)

    def locked(_: Path) -> None:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(mlflow_store, "_ask", locked)
    with pytest.raises(sqlite3.OperationalError):
        open_store(file)

    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_an_experiment_that_was_deleted_is_restored_and_said(
    tracked: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = tracking.experiment_id()
    tracking.client().delete_experiment(before)

    with caplog.at_level(logging.WARNING):
        assert tracking.experiment_id() == before

    assert tracking.client().get_experiment(before).lifecycle_stage == "active"
    assert "was deleted in MLflow: it is restored" in caplog.text


@pytest.mark.usefixtures("tracked")
def test_an_experiment_that_another_run_has_just_created_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client, real = tracking.client(), tracking.client().create_experiment

    def late(*given: Any, **named: Any) -> str:
        real(*given, **named)
        raise MlflowException("exists", RESOURCE_ALREADY_EXISTS)

    monkeypatch.setattr(client, "create_experiment", late)

    found = tracking.experiment_id()

    assert client.get_experiment(found).artifact_location == "beside-store:/artifacts"


def test_a_project_that_was_moved_has_its_champion_and_scores(
    trained: Trained, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(trained.root, moved)
    hidden = trained.root.rename(trained.root.with_name("hidden"))
    try:
        with sandbox.enter(moved):
            run = execute("inference", sandbox.day(1))
            assert sandbox.result(run, "score")["rows"] > 0
            assert sandbox.result(run, "monitor")["drift"]["stable_features"] > 0
    finally:
        hidden.rename(trained.root)


def test_what_stages_and_mlflow_keep_names_no_folder_of_the_machine(trained: Trained) -> None:
    root = f"{trained.root}".encode()
    kept = list((trained.root / "var" / "artifacts").rglob("*.json"))
    assert len(kept) > 10
    assert [path for path in kept if root in path.read_bytes()] == []
    with sqlite3.connect(trained.root / "var" / "mlflow" / "mlflow.db") as database:
        lines = [line for line in database.iterdump() if root.decode() in line]
    # MLflow's own experiment, which nobody uses.
    assert [line for line in lines if "'Default'" not in line] == []
