"""Slack, through an incoming webhook: set SLACK_WEBHOOK_URL."""

from __future__ import annotations

import logging
import os
import re
from typing import Any
from urllib.parse import urlsplit

from ..event import Event
from . import CONNECT_SECONDS, TOTAL_SECONDS

# https://docs.slack.dev/reference/block-kit/blocks
HEADER_LIMIT = 150
VARIABLES = ("SLACK_WEBHOOK_URL",)
SECTION_LIMIT = 3000
FIELD_LIMIT = 2000
FIELDS_LIMIT = 10
_FENCE = "```"


class SlackError(Exception):
    """Slack did not take the message; the text says why and never holds the webhook's address."""


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
    timeout = httpx.Timeout(TOTAL_SECONDS, connect=CONNECT_SECONDS)
    with httpx.stream("POST", _webhook_url(), json=message(event), timeout=timeout) as response:
        answer = next(response.iter_text(chunk_size=200), "")
    if response.status_code != 200 or answer.strip() != "ok":
        raise SlackError(f"Slack answered {response.status_code}: {answer!r}")


def message(event: Event) -> dict[str, Any]:
    """Return the event as a Block Kit message within Slack's limits."""
    blocks: list[dict[str, Any]] = [
        {
            "type": "header",
            "text": {"type": "plain_text", "text": _shorten(event.title, HEADER_LIMIT)},
        },
        {"type": "section", "text": _mrkdwn(_escape(event.summary, SECTION_LIMIT))},
    ]
    fields = [_field(label, value) for label, value in event.facts.items()]
    for first in range(0, len(fields), FIELDS_LIMIT):
        blocks.append({"type": "section", "fields": fields[first : first + FIELDS_LIMIT]})
    if event.error:
        # A fence inside the text would end the code block.
        room = SECTION_LIMIT - 2 * len(f"{_FENCE}\n")
        code = _escape(event.error.replace(_FENCE, "'''"), room)
        blocks.append({"type": "section", "text": _mrkdwn(f"{_FENCE}\n{code}\n{_FENCE}")})
    if event.links:
        links = [_link(label, address) for label, address in event.links.items()]
        blocks.append({"type": "context", "elements": links})
    return {"text": _escape(f"{event.title}. {event.summary}", SECTION_LIMIT), "blocks": blocks}


def _field(label: str, value: str) -> dict[str, Any]:
    heading = f"*{_escape(label, 100)}*\n"
    return _mrkdwn(heading + _escape(value, FIELD_LIMIT - len(heading)))


def _link(label: str, address: str) -> dict[str, Any]:
    # A bar would end the address.
    return _mrkdwn(f"<{_escape(address.replace('|', '%7C'), FIELD_LIMIT)}|{label}>")


def _mrkdwn(text: str) -> dict[str, Any]:
    # Verbatim: Slack must not turn words of an error message into links and mentions.
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _escape(text: str, limit: int) -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if len(escaped) <= limit:
        return escaped
    # The cut may fall inside an entity.
    return re.sub(r"&[a-z]*$", "", escaped[: limit - 1]) + "…"


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _webhook_url() -> str:
    url = os.environ["SLACK_WEBHOOK_URL"].strip()
    if not re.match(r"https?://[\w.-]+(:\d+)?(/|$)", url):
        raise SlackError("SLACK_WEBHOOK_URL is not a web address like https://host/path")
    return url
