"""Delivers messages to their channel: with retries, similar ones grouped, kept if they fail."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from ..core.redact import presentable
from .channels import TOTAL_SECONDS, Channel, NotDelivered
from .event import Event
from .outbox import Entry

# Before the second try; twice as long before each further one.
FIRST_PAUSE_SECONDS = 0.5
# What a channel shows without cutting it.
LARGEST_GROUP = 25


def deliver(channel: Channel, entries: Sequence[Entry], end: float, *, late: bool = False) -> None:
    """Send entries of one group as one message, and forget them when a server has taken it.

    Retries where that may help, while there is time, and waits as long as a server asks.

    Args:
        channel: Where to.
        entries: What to send.
        end: When to give up, a time of `time.monotonic`.
        late: Whether to mark the message as late whatever its age.

    Raises:
        Exception: What the channel raised last; the entries also hold it.
    """
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            channel.send(Event.of_many([_aged(entry, late) for entry in entries]))
            break
        except (Exception, SystemExit) as error:
            known = error if isinstance(error, NotDelivered) else NotDelivered("")
            for entry in entries:
                entry.failed(reason_of(error), refused=known.refused, left=known.left)
            wait = max(pause, known.after)
            if known.refused or time.monotonic() + wait >= end:
                raise
        time.sleep(wait)
        pause *= 2
    for entry in entries:
        entry.delivered()


def deliver_all(
    channel: Channel, entries: Sequence[Entry], end: float, *, late: bool = False
) -> None:
    """Send entries group by group, the oldest first, until one fails that may pass later.

    Raises:
        Exception: The last failure.
    """
    groups: dict[object, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.group, []).append(entry)
    refusal: NotDelivered | None = None
    for group in groups.values():
        for first in range(0, len(group), LARGEST_GROUP):
            try:
                deliver(channel, group[first : first + LARGEST_GROUP], end, late=late)
            except NotDelivered as error:
                if not error.refused:
                    raise
                refusal = error
    if refusal:
        raise refusal


def reason_of(error: BaseException) -> str:
    """Return why something did not arrive, without secrets."""
    return presentable(f"{type(error).__name__}: {error}")


def _aged(entry: Entry, late: bool) -> Event:
    event = entry.message.event
    late = late or datetime.now(UTC) - event.time > timedelta(seconds=TOTAL_SECONDS)
    return event.model_copy(update={"late": late})
