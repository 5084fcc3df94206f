"""Slack: the message as Slack takes it, and servers that misbehave."""

from __future__ import annotations

import json
import logging
import re
import time
from pathlib import Path
from typing import Any

import pytest
from flight_delays import alerts
from flight_delays.alerts import delivery, sender
from flight_delays.alerts.channels import slack
from receivers import free_port, silent_server, webhook


@pytest.fixture(autouse=True)
def one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try once, at once: what is repeated and collected has tests of its own."""
    monkeypatch.setattr(delivery, "FIRST_PAUSE_SECONDS", 1e9)
    monkeypatch.setattr(sender, "SIMILAR_SECONDS", 0.0)


def failure(message: str = "no space left", **changes: Any) -> alerts.Event:
    event = alerts.Event.of_failure(
        OSError(message),
        pipeline="training",
        stage="train",
        partition="2013-01-28",
        try_number=3,
        log_url="http://airflow:8080/log?a=1&b=2",
        tracking_url="http://mlflow:5000/#/run",
    )
    return event.model_copy(update=changes)


def test_the_message_names_project_pipeline_stage_partition_try_error_and_links(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with webhook() as slack_server:
        monkeypatch.setenv("SLACK_WEBHOOK_URL", slack_server.url)
        assert alerts.send(failure(project="Flights")) == [alerts.Delivery(channel="slack")]
    assert "/services/" not in caplog.text
    (body,) = slack_server.bodies
    header, summary, fields, error, links = json.loads(body)["blocks"]
    assert header["text"]["text"] == "Failed: Flights - training / train / 2013-01-28"
    assert summary["text"]["text"] == "training failed in train for partition 2013-01-28."
    assert [field["text"] for field in fields["fields"]] == [
        "*Project*\nFlights",
        "*Pipeline*\ntraining",
        "*Stage*\ntrain",
        "*Partition*\n2013-01-28",
        "*Try*\n3",
    ]
    assert error["text"]["text"] == "```\nOSError: no space left\n```"
    assert [link["text"] for link in links["elements"]] == [
        "<http://airflow:8080/log?a=1&amp;b=2|Log>",
        "<http://mlflow:5000/#/run|MLflow run>",
    ]


def test_markup_in_a_text_stays_text(project: Path) -> None:
    texts = json.dumps(slack.message(failure("<!channel> a & b ``` *bold*")))
    assert "&lt;!channel&gt; a &amp; b ''' *bold*" in texts


@pytest.mark.parametrize("character", ["x", "&", "<", "`", "é", "😀"])
def test_long_texts_are_cut_to_slacks_limits(project: Path, character: str) -> None:
    long = character * 10_000
    details = {f"{number}{long}": long for number in range(9)}
    blocks = slack.message(failure(long, project=long, summary=long, details=details))["blocks"]
    limits = {"header": 150, "section": 3000, "fields": 2000, "elements": 3000}
    for block in blocks:
        many = next((name for name in ("fields", "elements") if name in block), None)
        texts = [text["text"] for text in (block[many] if many else [block["text"]])]
        assert 1 <= len(texts) <= 10
        assert all(1 <= len(text) <= limits[many or block["type"]] for text in texts)


def test_a_cut_leaves_no_half_entity(project: Path) -> None:
    cuts = [slack._escape("x" * length + "&&", 20) for length in range(20)]
    assert all(re.fullmatch(r"x*(&amp;)*…?", cut) for cut in cuts)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"status": 500, "answer": b"oops"}, "Slack answered 500: 'oops'"),
        ({"status": 404, "answer": b"no_service"}, "Slack answered 404: 'no_service'"),
        ({"status": 302, "headers": {"Location": "http://127.0.0.1:1/"}}, "Slack answered 302"),
        ({"answer": b"<html>Please log in</html>"}, "Slack answered 200: '<html>"),
        ({"answer": b"\xff\xfe\x00"}, "Slack answered 200"),
        ({"answer": b"ok", "headers": {"Content-Encoding": "gzip"}}, "DecodingError"),
    ],
)
def test_any_answer_but_ok_is_a_failure(
    project: Path, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], reason: str
) -> None:
    with webhook(**answer) as slack_server:
        monkeypatch.setenv("SLACK_WEBHOOK_URL", slack_server.url)
        (delivery,) = alerts.send(failure())
    assert reason in str(delivery.error)
    assert len(slack_server.bodies) == 1


@pytest.mark.parametrize(
    ("greeting", "every"),
    [
        (b"", None),
        (b"HTTP/1.1 200 OK\r\nX-Slow: ", 0.05),
        (b"HTTP/1.1 200 OK\r\n\r\no", None),
        (b"220 this is no web server\r\n", None),
    ],
    ids=["says nothing", "never ends a header", "never ends the body", "speaks no HTTP"],
)
def test_a_server_that_hangs_costs_no_more_than_the_time_limit(
    project: Path, monkeypatch: pytest.MonkeyPatch, greeting: bytes, every: float | None
) -> None:
    monkeypatch.setattr(sender, "TOTAL_SECONDS", 1.0)
    started = time.monotonic()
    with silent_server(greeting, every) as port:
        monkeypatch.setenv("SLACK_WEBHOOK_URL", f"http://127.0.0.1:{port}/hook")
        (delivery,) = alerts.send(failure())
    assert delivery.error
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (f"http://127.0.0.1:{free_port()}/secret-path", "ConnectError"),
        ("hooks.slack.com/services/secret-path", "not a web address"),
        ("https://[secret-path", "not a web address"),
    ],
)
def test_the_webhooks_address_is_never_shown(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    url: str,
    reason: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("SLACK_WEBHOOK_URL", url)
    (delivery,) = alerts.send(failure(f"cannot reach {url}"))
    assert reason in str(delivery.error)
    kept = "".join(file.read_text() for file in project.glob("var/alerts/outbox/*/*.json"))
    assert kept
    assert "secret-path" not in caplog.text + kept
