"""Alerts: one event, sent through every channel that is configured."""

from __future__ import annotations

from .event import Event, run_url
from .sender import (
    Delivery,
    channel_names,
    load_channel,
    send,
    send_failure,
    send_failure_of,
    undelivered,
    variables,
)

__all__ = [
    "Delivery",
    "Event",
    "channel_names",
    "load_channel",
    "run_url",
    "send",
    "send_failure",
    "send_failure_of",
    "undelivered",
    "variables",
]
