"""Alerts: one event, sent through every channel that is configured."""

from __future__ import annotations

from .event import Event
from .sender import (
    Delivery,
    channel_names,
    load_channel,
    send,
    send_timeout,
    undelivered,
    variables,
)

__all__ = [
    "Delivery",
    "Event",
    "channel_names",
    "load_channel",
    "send",
    "send_timeout",
    "undelivered",
    "variables",
]
