"""Values that nobody should see as they are: in logs, errors, records and messages."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from flight_delays import alerts
from flight_delays.alerts.channels import slack, smtp
from flight_delays.core import logs
from flight_delays.core.errors import DataRejected
from flight_delays.core.outcomes import CheckedPartition, Violation
from flight_delays.core.plain import LONGEST_TEXT, plain
from flight_delays.core.records import StageError
from flight_delays.core.redact import redact_error

HUGE = "x" * 20_000_000
HOSTILE = {
    "newline": "a\n2026-01-01 ERROR forged",
    "return": "a\rforged",
    "ansi": "\x1b[31mred\x1b[0m \x1b]0;title\x07",
    "nul": "a\x00b",
    "c1": "\x9b31m",
    "separator": "a\u2028forged\u2029\x85",
    "direction": "\u202egpj.exe",
    "surrogate": "\ud800",
    "huge": HUGE,
    "huge and hostile": "\x1b\n\ud800" * 1_000_000,
}
LINES = ["\n", "\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]


@pytest.fixture
def stream(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """Return what the command line would log to standard error, for a test with `json_lines`."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    logs.setup_logging("INFO", json_lines=request.param)
    text = io.StringIO()
    (handler,) = root.handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(text)
    yield text
    logging.captureWarnings(False)
    root.handlers[:] = before
    root.setLevel(level)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_text_is_escaped_short_and_says_how_much_is_missing(text: str) -> None:
    for shown in (plain(text), plain(text, one_line=True)):
        assert len(shown) <= 6 * LONGEST_TEXT
        assert shown.replace("\n", "").isprintable()
        assert plain(shown) == shown or len(shown) > LONGEST_TEXT
    assert len(plain(text, one_line=True).splitlines()) == 1
    assert ("characters left out" in plain(text)) == (len(text) > LONGEST_TEXT)


def test_what_people_write_stays_as_it_is() -> None:
    text = "größer 😀 \\n 50% → a\n  - b\tc"
    assert plain(text) == text


@pytest.mark.parametrize("stream", [False, True], indirect=True)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_log_line_is_one_line(stream: io.StringIO, text: str) -> None:
    logs.get_logger("flight_delays.some").warning("value %s", text)
    logging.getLogger("library").warning(text.replace("%", ""))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) < 7 * LONGEST_TEXT


@pytest.mark.parametrize("stream", [True], indirect=True)
def test_a_json_log_is_one_object_a_line_whatever_is_logged(stream: io.StringIO) -> None:
    log = logs.get_logger("flight_delays.some")
    library = logging.getLogger("library")
    try:
        raise ValueError(HOSTILE["ansi"] + HUGE)
    except ValueError:
        log.exception("it\nfailed")
    warnings.warn("be\ncareful", stacklevel=1)
    library.warning("%d of %s", "none")
    library.warning("%(a)s", {"b": 1})
    library.warning({"no": "text"})
    library.warning("50% of %s", "it")
    log.warning("100 %")
    log.warning("%s %%", "50")
    read = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(read) == 8
    assert "ValueError" in read[0]["error"]
    assert "Traceback" in read[0]["error"]
    assert len(read[0]["error"]) < 6 * logs.LONGEST_TRACEBACK
    assert "careful" in read[1]["message"]
    assert [line["message"] for line in read[6:]] == ["100 %", "50 %"]


def test_every_engines_log_gets_plain_lines(caplog: pytest.LogCaptureFixture) -> None:
    """They bring handlers of their own, which know nothing of ours."""
    logs.get_logger("flight_delays.some").warning("value '%s'", HOSTILE["newline"])
    assert caplog.messages[-1] == "value 'a\\n2026-01-01 ERROR forged'"


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_value_in_a_violation_forges_no_line_of_an_error_a_record_or_a_message(
    project: Path, text: str
) -> None:
    violation = Violation(check="wrong_value", detail=f"seen: '{text}'")
    error = DataRejected("2026-03-01", [violation], "report.json")
    assert len(str(error).splitlines()) == 3
    assert len(StageError.of(error).model_dump_json()) < 10_000
    event = alerts.Event.of_failure(error, pipeline="inference", stage="validate")
    assert len(event.model_dump_json()) < 20_000
    mail = smtp.message(event, "a@example.org", "b@example.org").get_content()
    assert not any(line.startswith(("forged", "2026-01-01")) for line in mail.splitlines())
    assert len(json.dumps(slack.message(event))) < 30_000


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_any_error_leaves_a_stage_short_and_plain(project: Path, text: str) -> None:
    error = ValueError(f"line 7: {text}")
    error.__cause__ = OSError(5, text)
    redact_error(error)
    for one in (error, error.__cause__):
        assert len(str(one)) < 7 * LONGEST_TEXT
        assert str(one).replace("\n", "").isprintable()


def test_the_rows_of_a_report_hold_short_values(project: Path) -> None:
    rows = ({"name": HUGE, "other": "\x1b[2J", "number": 3, "nothing": None},)
    checked = CheckedPartition(
        partition="2026-03-01", rows=1, quarantined=1, first_invalid_rows=rows
    )
    (row,) = checked.first_invalid_rows
    assert len(row["name"]) <= 1_000
    assert row | {"name": ""} == {"name": "", "other": "\\x1b[2J", "number": 3, "nothing": None}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_an_event_holds_no_text_that_a_channel_cannot_show(project: Path, text: str) -> None:
    event = alerts.Event.of_failure(OSError(text), pipeline=text, stage=text, partition=text)
    event = event.model_copy(
        update={
            "details": alerts.Event.model_validate(
                {"kind": "drift", "summary": text, "details": {text[:50]: text}}
            ).details
        }
    )
    shown = [event.title, event.summary, f"{event.error}", *event.facts, *event.facts.values()]
    assert len(event.title.splitlines()) == 1
    assert all(one.replace("\n", "").isprintable() for one in shown)
    assert max(map(len, shown)) < 30 * LONGEST_TEXT
