"""A full disk, a read-only one, a missing right, a log-in: one sentence with the way out."""

from __future__ import annotations

import errno
import io
import multiprocessing
import os
import resource
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sandbox
from flight_delays import pipeline
from flight_delays.cli import app
from flight_delays.core import explain, tracking
from flight_delays.core.errors import NoAccess
from flight_delays.core.records import read_records
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
from rich.console import Console

PROCESSES = multiprocessing.get_context("forkserver")
SENTENCES = {
    errno.ENOSPC: "no space left for",
    errno.EDQUOT: "the disk quota of user",
    errno.EROFS: "is read-only",
    errno.EACCES: "has no access to",
}


@pytest.mark.parametrize("number", SENTENCES)
def test_a_disk_that_takes_nothing_is_named_once_with_path_and_place(
    small: Path,
    inbox: Callable[[], list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    replace = os.replace

    def refuse(source: Any, target: Any, **options: Any) -> None:
        if "/features/" in f"{target}":
            raise OSError(number, os.strerror(number), source, None, target)
        replace(source, target, **options)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(NoAccess, match=SENTENCES[number]) as caught:
        pipeline.execute("training", sandbox.PARTITION)
    message = f"{caught.value}"
    assert str(small / "var" / "artifacts" / "features") in message
    assert f" at {explain._mount(small)}" in message
    assert len(message) < 500
    assert caught.value.__cause__ is None
    [folder] = (small / "var/artifacts/runs").iterdir()
    [error] = [one.error for one in read_records(folder.name) if one.error]
    assert f"{error}" == f"NoAccess: {message}"
    [event] = inbox()
    assert event["error"] == f"NoAccess: {message}"


def run_within(root: Path, shown: Any) -> None:
    """Run the pipeline in a process that may write no larger file."""
    os.dup2(shown.fileno(), 2)
    # Python would leave cut .pyc files behind.
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, 4_096))
    sys.argv = ["pipeline", "run", "training", "--partition", sandbox.PARTITION]
    with sandbox.enter(root, sandbox.SMALL):
        app.main()


def test_a_limit_of_the_system_is_a_sentence_and_no_traceback(small: Path) -> None:
    reader, writer = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=run_within, args=(small, writer))
    process.start()
    writer.close()
    with open(reader.fileno(), closefd=False) as stream:
        shown = stream.read()
    process.join()
    assert process.exitcode == 1, shown
    assert "error: NoAccess:" in shown
    assert "Traceback" not in shown
    assert len(shown) < 5_000


class Full(io.StringIO):
    """Stands for a standard output on a disk that is full."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_below_the_standard_output_is_a_sentence(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(app, "out", Console(file=Full()))
    monkeypatch.setattr(sys, "argv", ["pipeline", "data"])
    with pytest.raises(SystemExit):
        app.main()
    assert "no space left for what it writes" in " ".join(capsys.readouterr().err.split())


def test_sqlites_words_name_mlflows_file(project: Path, tmp_path: Path) -> None:
    file = tmp_path / "there.db"
    sqlite3.connect(file).execute("create table one (two)").close()
    read_only = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    tiny = sqlite3.connect(tmp_path / "tiny.db")
    tiny.execute("pragma max_page_count = 1")
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(file.read_bytes()[:4096])
    for database, statement, sentence in (
        (sqlite3.connect(damaged), "select * from one", "is damaged"),
        (read_only, "insert into one values (1)", "is read-only"),
        (tiny, "create table one (two)", "no space left"),
    ):
        with pytest.raises(sqlite3.DatabaseError) as caught:
            database.execute(statement)
        # MLflow passes on the text.
        known = explain.explain(
            MlflowException(f"(sqlite3.{type(caught.value).__name__}) {caught.value}")
        )
        assert sentence in f"{known}"
        assert str(project / "var" / "mlflow" / "mlflow.db") in f"{known}"
        database.close()


@pytest.mark.parametrize(
    "error",
    [
        MlflowException("API request to endpoint /x failed with error code 401 != 200."),
        MlflowException("no", PERMISSION_DENIED),
    ],
)
def test_a_log_in_that_mlflow_refuses_names_the_variables(
    project: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@mlflow.example.org")
    known = f"{explain.explain(error)}"
    assert "MLflow at https://" in known
    assert "refuses this log-in (40" in known
    assert "MLFLOW_TRACKING_TOKEN" in known
    assert "secret" not in known


def test_other_errors_stay_what_they_are(project: Path) -> None:
    for error in (
        ValueError("database"),
        FileNotFoundError(errno.ENOENT, "no", "/x"),
        PermissionError(errno.EPERM, "a connection"),
        NoAccess("known"),
        MlflowException("no such run"),
    ):
        assert explain.explain(error) is None


def test_an_error_while_opening_mlflow_is_alerted_as_a_sentence(
    tracked: Path, inbox: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> str:
        raise MlflowException(
            "(sqlite3.OperationalError) unable to open database file " + "x" * 9999
        )

    monkeypatch.setattr(tracking, "open_run", fail)
    with pytest.raises(NoAccess, match="has no access to"):
        pipeline.execute("training", sandbox.PARTITION)
    [event] = inbox()
    assert event["stage"] == "start"
    assert len(event["error"]) < 500
