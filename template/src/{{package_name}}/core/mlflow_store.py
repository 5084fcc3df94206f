"""The project's own MLflow store: a SQLite file that exists completely or not at all."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from filelock import FileLock
from mlflow import MlflowClient

from .errors import StoreError
from .logs import get_logger

log = get_logger(__name__)

_NEW = "new-store-"


def open_store(file: Path) -> None:
    """Create the store if there is none, and replace one that was never finished.

    MLflow takes seconds to create its tables one by one: if it is killed meanwhile, or two
    processes do it at once, the file stays broken. One process creates it under another name and
    moves it into place; others wait.

    Raises:
        StoreError: MLflow cannot read it, and it holds runs or is damaged.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    if _is_there(file) and _opens(file):
        return
    with FileLock(f"{file}.lock"):
        if _is_there(file):
            if _opens(file):
                return
            aside = file.with_name(f"{file.name}.half-made-{datetime.now(UTC):%Y%m%dT%H%M%S}")
            file.rename(aside)
            log.warning("%s was never finished and holds no runs: it is now %s", file, aside.name)
        for left in file.parent.glob(f"{_NEW}*"):
            shutil.rmtree(left)
        with TemporaryDirectory(prefix=_NEW, dir=file.parent) as folder:
            new = Path(folder) / file.name
            _ask(new)
            os.replace(new, file)


def _is_there(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0


def _ask(file: Path) -> None:
    """Let MLflow read a store, which creates its tables if there are none."""
    MlflowClient(f"sqlite:///{file}").search_experiments(max_results=1)


def _opens(file: Path) -> bool:
    """Return whether MLflow can read a store; False for one without runs, which may be replaced."""
    try:
        _ask(file)
    except Exception as error:  # Migrations of a half-made store raise anything.
        if not os.access(file, os.R_OK | os.W_OK) or "database is locked" in f"{error}":
            raise
        if runs := _count_runs(file):
            raise StoreError(
                f"{file} holds {runs} runs, and MLflow cannot read it ({error}). Where MLflow is "
                f"newer than the file, copy it, then: uv run mlflow db upgrade sqlite:///{file}"
            ) from error
        return False
    return True


def _count_runs(file: Path) -> int:
    """Return how many runs a file holds; also 0 if it lacks the table.

    Raises:
        StoreError: It is damaged, so the number is unknown.
    """
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as database:
            return int(database.execute("SELECT count(*) FROM runs").fetchone()[0])
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorname in ("SQLITE_CORRUPT", "SQLITE_NOTADB"):
            raise StoreError(
                f"{file} is damaged ({error}): put a copy of it back, or move it away to begin "
                "without its runs and models"
            ) from error
        return 0
