"""Hostile servers, met by a failing run inside a generated project.

The chat, the mail server and Prometheus' gateway all misbehave in the same way, and the run ends
with its own error and what it could not tell kept on disk. A run that waits for such a server
would wait until the test's time limit: none of them ever ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import mlflow
import pytest
import sandbox
from flight_delays import alerts, pipeline
from flight_delays.alerts import sender
from flight_delays.cli import doctor
from flight_delays.core import tracking
from flight_delays.core.errors import DataRejected
from flight_delays.reporting import prometheus
from flight_delays.stages.start import start
from receivers import free_port, silent_server, webhook

pytestmark = pytest.mark.timeout(60)

ANSWER = b"HTTP/1.1 200 OK\r\n"
# How a server behaves: what it says to whoever connects, and after how many seconds again.
HOSTILE: dict[str, tuple[bytes, float | None]] = {
    "accepts and says nothing": (b"", None),
    "says a byte at a time": (b"2", 0.2),
    "never ends a line": (b"220-" + b"x" * 4_000, 0.01),
    "never ends its headers": (ANSWER + b"X-A: b\r\n" * 20, 0.01),
    "never ends its body": (ANSWER + b"\r\n" + b"x" * 65_536, 0.0),
    "never ends its greeting": (b"220-hello\r\n", 0.01),
    "greets, then says nothing": (b"220 ready\r\n", None),
    "agrees to everything, for ever": (b"250 ok\r\n", 0.01),
    "answers rubbish": (b"\x00\xff" * 5_000, None),
    "sends a bomb": (ANSWER + b"Content-Encoding: gzip\r\n\r\n\x1f\x8b" + bytes(9_000), 0.01),
}


@pytest.fixture
def failing(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Enter a project whose newest day cannot be read, and whose time limits are short."""
    source = tmp_path / "source"
    variables = sandbox.source_of(source, [sandbox.PARTITION])
    (source / f"{sandbox.PARTITION}.parquet").write_bytes(b"PAR1 cut off")
    monkeypatch.setattr(sender, "TOTAL_SECONDS", 0.5)
    monkeypatch.setattr(prometheus, "TOTAL_SECONDS", 0.5)
    # What the libraries would wait for a byte.
    monkeypatch.setattr(prometheus, "ANSWER_SECONDS", 3600.0)
    with sandbox.enter(small, variables):
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3600")
        yield small


def point_at(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Make a port the chat, the mail server and the gateway."""
    monkeypatch.setenv("SLACK_WEBHOOK_URL", f"http://127.0.0.1:{port}/services/secret-path")
    monkeypatch.setenv("PROMETHEUS_PUSHGATEWAY_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("SMTP_HOST", "127.0.0.1")
    monkeypatch.setenv("SMTP_PORT", f"{port}")
    monkeypatch.setenv("SMTP_SECURITY", "none")
    monkeypatch.setenv("SMTP_FROM", "a@example.org")
    monkeypatch.setenv("SMTP_TO", "b@example.org")


def fail() -> str:
    """Run the pipeline into its error, and return what it says."""
    with pytest.raises(DataRejected, match="unreadable_file") as error:
        pipeline.execute("inference", sandbox.PARTITION)
    runs = tracking.client().search_runs([tracking.experiment_id()])
    assert [run.info.status for run in runs] == ["FAILED"]
    return str(error.value)


def undelivered(root: Path) -> dict[str, Any]:
    """Return what could not be told, by channel."""
    files = root.glob("var/alerts/outbox/*/*.json")
    return {file.parent.name: json.loads(file.read_text()) for file in files}


def refusing() -> AbstractContextManager[int]:
    return nullcontext(free_port())


@pytest.mark.parametrize("how", [*HOSTILE, "refuses"])
def test_a_server_that_misbehaves_costs_a_run_no_more_than_the_time_limit(
    failing: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    with refusing() if how == "refuses" else silent_server(*HOSTILE[how]) as port:
        point_at(monkeypatch, port)
        said = fail()

    kept = undelivered(failing)
    assert set(kept) == {"smtp", "slack"}
    for record in kept.values():
        assert record["error"]
        assert said in record["event"]["error"]
    assert "secret-path" not in caplog.text + json.dumps(kept)


@contextmanager
def redirecting(status: int) -> Iterator[tuple[int, list[bytes]]]:
    """Run a server that sends everybody to another host; yields its port and what that one got."""
    with (
        webhook(host="127.0.0.2") as other,
        webhook(status, b"", {"Location": f"{other.url}?from=here"}) as first,
    ):
        yield int(first.url.split(":")[2].partition("/")[0]), other.bodies


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_alert_and_no_secret_follows_a_redirect(
    failing: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    with redirecting(status) as (port, followed):
        point_at(monkeypatch, port)
        # Another server's: a web server does not speak SMTP.
        monkeypatch.setenv("SMTP_PORT", f"{free_port()}")
        fail()

    assert followed == []
    assert f"Slack answered {status}" in undelivered(failing)["slack"]["error"]


def test_an_mlflow_server_that_hangs_ends_a_run_at_its_limit_and_is_told(failing: Path) -> None:
    """In a process of its own: where a library swallows the time limit's error, that ends."""
    with webhook() as slack, silent_server(*HOSTILE["says a byte at a time"]) as port:
        variables = {
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}",
            "SLACK_WEBHOOK_URL": slack.url,
            "PIPELINE_LIMITS__STAGE_TIMEOUT_MINUTES": f"{1 / 60}",
        }
        program = "from flight_delays.cli.app import main; main()"
        command = [sys.executable, "-c", program, "run", "inference"]
        done = subprocess.run(
            [*command, "--partition", f"{sandbox.PARTITION}"],
            env={**os.environ, **variables},
            check=False,
            timeout=50,
        )
    assert done.returncode != 0
    assert any(b"StageTimeout" in body for body in slack.bodies)


def test_an_mlflow_server_that_hangs_in_the_middle_of_a_run_does_not_delay_the_alert(
    failing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start("inference", sandbox.PARTITION)
    with silent_server() as port, monkeypatch.context() as patch:
        hangs = mlflow.MlflowClient(f"http://127.0.0.1:{port}")
        patch.setattr(tracking, "client", lambda: hangs)
        events: list[alerts.Event] = []
        patch.setattr(sender, "send", events.append)
        alerts.send_failure_of(run, "score", OSError("no space left"))
    [event] = events
    assert event.error == "OSError: no space left"
    assert f"/runs/{run.tracking_run_id}" in f"{event.tracking_url}"


def test_doctor_answers_while_mlflow_says_a_byte_at_a_time(
    failing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "CHECK_SECONDS", 1.0)
    monkeypatch.setattr(doctor, "TOTAL_SECONDS", 3.0)
    with silent_server(*HOSTILE["says a byte at a time"]) as port:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        sandbox.clear_caches()
        checks = {check.name: check for check in doctor.run_checks()}
    assert not checks["MLflow"].ok
    assert checks["MLflow"].fix
