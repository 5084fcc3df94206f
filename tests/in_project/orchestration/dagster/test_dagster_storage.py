"""Dagster's tables are made by one process, before its servers look for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from filelock import FileLock
from flight_delays.orchestration import servers
from flight_delays.orchestration.dagster import instance, local


@pytest.fixture
def steps(project: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that tells in which order tables are made and programs are started."""
    noted: list[str] = []

    @contextmanager
    def opened() -> Iterator[None]:
        noted.append("tables")
        lock = FileLock(project / "var" / "engine.lock", is_singleton=False)
        assert servers.one_at_a_time().lock_file == lock.lock_file
        with pytest.raises((TimeoutError, RuntimeError)):
            lock.acquire(blocking=False)
        yield

    def serve(*_: Any) -> None:
        noted.append("servers")

    monkeypatch.setattr(dg.DagsterInstance, "get", opened)
    monkeypatch.setattr(servers, "serve", serve)
    return noted


def test_up_makes_the_tables_before_its_servers_start(steps: list[str]) -> None:
    local.up()
    assert steps == ["tables", "servers"]


def test_a_database_that_does_not_answer_is_a_sentence(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "postgresql+psycopg2://dagster:secret@127.0.0.1:9/dagster"
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", address)
    instance.configure_environment()
    with pytest.raises(SystemExit, match="does not answer: start it, or correct DAGSTER_PO") as end:
        instance.make_storage()
    assert "secret" not in f"{end.value}"
