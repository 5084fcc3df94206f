"""The sender: it tells everybody it can, and never gets in the way of the error it reports."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sandbox
from flight_delays import alerts
from flight_delays.alerts import delivery, sender
from flight_delays.core import errors
from flight_delays.core.outcomes import Violation

CHANNEL = """
def configured(): return True
def describe(): return "a list"
def send(event): {send}
"""
OUTBOX = "var/alerts/outbox/*/*.json"
AddChannel = Callable[[str, str], None]


@pytest.fixture(autouse=True)
def one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try once, at once: what is repeated and collected has tests of its own."""
    monkeypatch.setattr(delivery, "FIRST_PAUSE_SECONDS", 1e9)
    monkeypatch.setattr(sender, "SIMILAR_SECONDS", 0.0)


def failure(message: str = "no space left") -> alerts.Event:
    return alerts.Event.of_failure(
        OSError(message), pipeline="training", stage="train", partition="2013-01-28", try_number=2
    )


def kept(project: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted(project.glob(OUTBOX))]


def test_without_a_channel_the_log_says_that_nobody_was_told(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert alerts.send(failure()) == []
    assert "no alert was sent" in caplog.text
    assert "no space left" in caplog.text
    assert ".env.example" in caplog.text


def test_a_file_in_the_folder_is_a_channel(add_channel: AddChannel, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    add_channel("file", CHANNEL.format(send=f"open({str(inbox)!r}, 'w').write(event.title)"))
    assert alerts.send(failure()) == [alerts.Delivery(channel="file")]
    assert inbox.read_text().endswith("training / train / 2013-01-28")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (CHANNEL.format(send="raise RuntimeError('is down')"), "RuntimeError: is down"),
        (CHANNEL.format(send="__import__('time').sleep(30)"), "no answer within 0.5 s"),
        (CHANNEL.format(send="raise SystemExit(1)"), "SystemExit: 1"),
        ("import a_package_that_is_not_there", "a_package_that_is_not_there"),
        ("", "has no attribute 'configured'"),
    ],
    ids=["raises", "hangs", "exits", "does not import", "is no channel"],
)
def test_a_broken_channel_is_logged_and_kept_and_the_others_still_deliver(  # noqa: PLR0913, PLR0917
    add_channel: AddChannel,
    project: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    reason: str,
) -> None:
    monkeypatch.setattr(sender, "TOTAL_SECONDS", 0.5)
    add_channel("broken", source)
    add_channel("working", CHANNEL.format(send="pass"))
    started = time.monotonic()
    broken, working = alerts.send(failure())
    assert time.monotonic() - started < 2
    assert reason in str(broken.error)
    assert working.error is None
    assert "alert not sent through broken" in caplog.text
    assert [line["event"]["error"] for line in kept(project)] == ["OSError: no space left"]
    ((channel, count),) = [(each.channel, each.count) for each in alerts.backlogs()]
    assert (channel, count) == ("broken", 1)


@pytest.mark.parametrize("toml", ["[training]\ntrials = 'many'\n", "[training"])
def test_bad_settings_do_not_stop_the_alert_about_them(
    add_channel: AddChannel, project: Path, toml: str
) -> None:
    (project / "config/pipeline.toml").write_text(toml)
    add_channel("working", CHANNEL.format(send="pass"))
    assert alerts.send(failure()) == [alerts.Delivery(channel="working")]


def test_an_undelivered_alert_that_cannot_be_kept_is_logged(
    add_channel: AddChannel, project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (project / "var").write_text("a file where the folder should be")
    add_channel("broken", CHANNEL.format(send="raise RuntimeError('is down')"))
    assert alerts.send(failure())[0].error
    assert "could not be kept" in caplog.text


def test_rejected_data_is_told_apart_from_a_failure_even_behind_an_engines_exception(
    project: Path,
) -> None:
    rejection = errors.DataRejected(
        "2013-01-28", [Violation(check="min_rows", detail="3 rows")], "var/report.json"
    )
    wrapped = RuntimeError("task failed")
    wrapped.__cause__ = rejection
    for error in (rejection, wrapped):
        event = alerts.Event.of_failure(error, stage="validate")
        assert event.kind == "data_rejected"
        assert "min_rows: 3 rows" in str(event.error)
        assert event.facts["Report"] == "var/report.json"


def test_no_secret_is_in_an_event_or_in_the_reason_why_it_was_not_sent(
    add_channel: AddChannel, project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (project / ".env").write_text("WAREHOUSE_PASSWORD=hunter22\n")
    add_channel("broken", CHANNEL.format(send="raise RuntimeError('hunter22 was refused')"))
    alerts.send(failure("cannot log in to postgresql://me:swordfish@db/flights with hunter22"))
    (record,) = kept(project)
    written = json.dumps(record) + caplog.text
    assert "postgresql://me:***@db/flights" in written
    assert "swordfish" not in written
    assert "hunter22" not in written


@pytest.mark.parametrize("message", ["\ud800 lone surrogate", "\x00\x1b[31m", "x" * 1_000_000, ""])
def test_odd_error_texts_make_an_event(project: Path, message: str) -> None:
    assert alerts.send(failure(message)) == []


def test_variables_of_a_channel_that_was_added_reach_no_test(
    project: Path, add_channel: AddChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_channel("teams", 'VARIABLES = ("TEAMS_WEBHOOK_URL",)')
    # One without any is found, too.
    add_channel("pager", "")
    monkeypatch.setenv("TEAMS_WEBHOOK_URL", "https://teams.example.org/real")
    with sandbox.enter(project):
        assert "TEAMS_WEBHOOK_URL" not in os.environ
    assert "TEAMS_WEBHOOK_URL" in os.environ
