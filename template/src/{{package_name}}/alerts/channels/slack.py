"""Slack, through an incoming webhook: set SLACK_WEBHOOK_URL."""

from __future__ import annotations

import html
import logging
import os
import re
import time
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from ..event import Event
from . import TOTAL_SECONDS, NotDelivered

VARIABLES = ("SLACK_WEBHOOK_URL",)
# https://docs.slack.dev/reference/block-kit/blocks
HEADER_LIMIT = 150
SECTION_LIMIT = 3000
LABEL_LIMIT = 100
# With its label and the marks around it, a field may have 2000.
VALUE_LIMIT = 1800
FIELDS_LIMIT = 10
# Its fences take the rest of a section.
CODE_LIMIT = 2990
_FENCE = "```"


# https://www.rfc-editor.org/rfc/rfc9110: these and 5xx are about the moment, not the message.
_PASSING = (408, 425, 429)


class SlackError(NotDelivered):
    """Slack did not take the message; the text never holds the webhook's address."""


def configured() -> bool:
    """Return whether a webhook is set."""
    return bool(os.environ.get("SLACK_WEBHOOK_URL"))


def describe() -> str:
    """Return the webhook's host; the rest of the address is a secret.

    Raises:
        SlackError: The address is not one.
    """
    return f"webhook at {urlsplit(_webhook_url()).hostname}"


def send(event: Event) -> None:
    """Post the event.

    Raises:
        SlackError: Slack answered with anything but its "ok".
        httpx.HTTPError: No answer.
    """
    import httpx

    # httpx logs the address of each request at INFO, and this one is a secret.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    body = message(event)
    with httpx.stream("POST", _webhook_url(), json=body, timeout=TOTAL_SECONDS) as response:
        answer = next(response.iter_text(chunk_size=200), "")
    status = response.status_code
    if status != 200 or answer.strip() != "ok":
        raise SlackError(
            f"Slack answered {status}: {answer!r}",
            refused=status < 500 and status not in _PASSING,
            after=_seconds(response.headers.get("Retry-After", "")),
        )


def message(event: Event) -> dict[str, Any]:
    """Return the event as a Block Kit message within Slack's limits."""
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": event.title[:HEADER_LIMIT]}},
        {"type": "section", "text": _mrkdwn(_escape(event.summary, SECTION_LIMIT))},
    ]
    fields = [
        _mrkdwn(f"*{_escape(label, LABEL_LIMIT)}*\n{_escape(value, VALUE_LIMIT)}")
        for label, value in event.facts.items()
    ]
    for first in range(0, len(fields), FIELDS_LIMIT):
        blocks.append({"type": "section", "fields": fields[first : first + FIELDS_LIMIT]})
    if event.error:
        # A fence inside the text would end the code block.
        code = _escape(event.error.replace(_FENCE, "'''"), CODE_LIMIT)
        blocks.append({"type": "section", "text": _mrkdwn(f"{_FENCE}\n{code}\n{_FENCE}")})
    if event.links:
        # A bar would end the address.
        links = [
            _mrkdwn(f"<{_escape(address.replace('|', '%7C'), VALUE_LIMIT)}|{label}>")
            for label, address in event.links.items()
        ]
        blocks.append({"type": "context", "elements": links})
    return {"text": _escape(f"{event.title}. {event.summary}", SECTION_LIMIT), "blocks": blocks}


def _seconds(retry_after: str) -> float:
    """Return how long a server asks to wait, in seconds or until a date; 0 where it is neither."""
    try:
        if re.fullmatch(r"\d+", retry_after):
            return float(retry_after)
        until = parsedate_to_datetime(retry_after)
        return max(0.0, until.timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _mrkdwn(text: str) -> dict[str, Any]:
    # Verbatim: Slack must not turn words of an error message into links and mentions.
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _escape(text: str, limit: int) -> str:
    escaped = html.escape(text, quote=False)
    if len(escaped) <= limit:
        return escaped
    # The cut may fall inside an entity.
    return re.sub(r"&[a-z]*$", "", escaped[: limit - 1]) + "…"


def _webhook_url() -> str:
    url = os.environ["SLACK_WEBHOOK_URL"].strip()
    if not re.match(r"https?://[\w.-]+(:\d+)?(/|$)", url):
        raise SlackError("SLACK_WEBHOOK_URL is not a web address like https://host/path")
    return url
