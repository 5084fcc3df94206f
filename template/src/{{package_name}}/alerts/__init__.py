"""Alerts: one event, sent through every channel that is configured."""

from __future__ import annotations

from .event import Event, run_url
from .outbox import backlogs
from .sender import (
    Delivery,
    Flushed,
    channel_names,
    flush,
    load_channel,
    send,
    send_failure,
    send_failure_of,
    send_signal,
    variables,
)

__all__ = [
    "Delivery",
    "Event",
    "Flushed",
    "backlogs",
    "channel_names",
    "flush",
    "load_channel",
    "run_url",
    "send",
    "send_failure",
    "send_failure_of",
    "send_signal",
    "variables",
]
