"""A company's shell names a proxy: this machine is reached without it."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import requests
from flight_delays import alerts
from flight_delays.core.settings import load_environment
from receivers import free_port, webhook

HERE = "localhost,127.0.0.1,::1"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"NO_PROXY": "intranet"}, "intranet"),
        ({"HTTP_PROXY": "http://proxy:3128"}, HERE),
        ({"https_proxy": "http://proxy:3128", "no_proxy": ""}, HERE),
        ({"ALL_PROXY": "socks5://proxy", "NO_PROXY": "intranet, localhost"}, f"intranet,{HERE}"),
        ({"HTTP_PROXY": "http://proxy", "NO_PROXY": "*"}, "*"),
        # Some libraries read one, some the other.
        ({"http_proxy": "http://proxy", "NO_PROXY": "a", "no_proxy": "b"}, f"b,a,{HERE}"),
    ],
)
def test_loopback_joins_what_bypasses_a_proxy(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    expected: str | None,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    load_environment()
    load_environment()
    assert os.environ.get("NO_PROXY") == expected
    if set(variables) - {"NO_PROXY"}:
        assert os.environ["no_proxy"] == expected


def get_with_urllib(url: str) -> object:
    return urllib.request.urlopen(urllib.request.Request(url, data=b"{}"), timeout=5)


@pytest.mark.parametrize(
    "ask",
    [
        lambda url: httpx.post(url, json={}, timeout=5),
        lambda url: requests.post(url, json={}, timeout=5),
        get_with_urllib,
    ],
    ids=["httpx", "requests", "urllib"],
)
def test_each_library_reaches_loopback(
    project: Path, monkeypatch: pytest.MonkeyPatch, ask: Callable[[str], object]
) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, nowhere)
    with webhook() as server:
        with pytest.raises((OSError, httpx.HTTPError)):
            ask(server.url)
        load_environment()
        ask(server.url)
        assert len(server.bodies) == 1


def test_an_alert_to_this_machine_and_a_proxy_of_dot_env(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / ".env").write_text(f"HTTP_PROXY=http://127.0.0.1:{free_port()}\n")
    with webhook() as slack:
        monkeypatch.setenv("SLACK_WEBHOOK_URL", slack.url)
        [delivery] = alerts.send(alerts.Event.test())
    assert delivery.ok, delivery.error
