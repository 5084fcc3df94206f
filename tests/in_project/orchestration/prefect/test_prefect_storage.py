"""Prefect's tables are made by one server at a time, which does so as it starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from filelock import FileLock, Timeout
from flight_delays.orchestration import servers
from flight_delays.orchestration.prefect import local


@pytest.fixture
def is_held(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Return a function that says whether others would wait; there is no server yet."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    local.configure_environment()

    def is_held() -> bool:
        lock = FileLock(project / "var" / "engine.lock", is_singleton=False)
        assert servers.one_at_a_time().lock_file == lock.lock_file
        try:
            lock.acquire(blocking=False)
        except (Timeout, RuntimeError):
            return True
        lock.release()
        return False

    return is_held


def test_a_run_holds_the_lock_until_its_server_is_ready(
    is_held: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def note(*_: Any, **__: Any) -> Any:
        seen.append(is_held())
        return mock.Mock()

    monkeypatch.setattr(f"{local.__name__}.subprocess.Popen", note)
    monkeypatch.setattr(f"{local.__name__}.atexit.register", mock.Mock())
    monkeypatch.setattr(servers, "wait_until_ready", note)
    wait = local._serve_api()
    assert is_held()
    wait()
    assert seen == [True, True]
    assert not is_held()


def test_up_holds_the_lock_until_its_servers_are_ready(
    is_held: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def serve(_: Any, addresses: Callable[[], Any]) -> None:
        seen.append(is_held())
        addresses()
        seen.append(is_held())

    monkeypatch.setattr(servers, "serve", serve)
    local.up()
    assert seen == [True, False]
