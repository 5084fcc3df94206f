"""Sends an event through every channel that is configured.

Whatever a channel does, `send` never raises and never takes longer than `TOTAL_SECONDS`, so that
an alert cannot hide the error it is about. What does not arrive waits in the outbox.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from ..core import optional
from ..core.attempt import attempt
from ..core.errors import SettingsError, Terminated
from ..core.logs import get_logger
from ..core.refs import Run
from ..core.settings import load_environment
from . import outbox
from .channels import TOTAL_SECONDS, Channel, NotDelivered
from .delivery import deliver_all, reason_of
from .event import Event, of_run
from .outbox import Backlog, Entry, Message

log = get_logger(__name__)

CHANNELS = "alerts.channels"
# After one of a group went out, further ones wait for others like them, and go as one.
SIMILAR_SECONDS = 60.0
# How much of the time limit they wait.
COLLECT_SHARE = 0.4


@dataclass(frozen=True)
class Delivery:
    """What became of an event in one channel; `error` is None when it arrived."""

    channel: str
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether it arrived."""
        return self.error is None


@dataclass(frozen=True)
class Flushed:
    """What became of a channel's waiting alerts; `left` is None when none is."""

    channel: str
    delivered: int
    left: Backlog | None


def channel_names() -> list[str]:
    """Return the names of the channels this project has, configured or not."""
    return optional.names(CHANNELS)


def load_channel(name: str) -> Channel:
    """Import a channel."""
    return cast(Channel, optional.load(f"{CHANNELS}.{name}"))


def variables() -> list[str]:
    """Return the names of the variables that this project's channels read."""
    channels = map(load_channel, channel_names())
    return [name for channel in channels for name in getattr(channel, "VARIABLES", ())]


def send(event: Event) -> list[Delivery]:
    """Send an event through every configured channel at once.

    Never raises. What did not arrive is logged, and waits in the outbox for `flush` and for the
    next event that arrives.

    Returns:
        One delivery per configured channel; none without such a channel.
    """
    with contextlib.suppress(SettingsError):
        load_environment()
    deliveries = _send(event)
    if not deliveries:
        log.warning(
            "no alert was sent for '%s', because no channel is configured: set the variables "
            "of one (%s) that .env.example names. %s",
            event.title,
            ", ".join(channel_names()) or "this project has none",
            event.error or event.summary,
        )
    for delivery in deliveries:
        if delivery.ok:
            log.info("alert sent through %s: %s", delivery.channel, event.title)
        else:
            log.error("alert not sent through %s: %s", delivery.channel, delivery.error)
    return deliveries


def send_failure(error: BaseException | str | None, **where: Any) -> list[Delivery]:
    """Alert the team to a failed stage; `where` is what `Event.of_failure` takes."""
    return send(Event.of_failure(error, **where))


def send_failure_of(run: Run, stage: str, error: BaseException) -> list[Delivery]:
    """Alert the team to a stage of a run that failed in this process."""
    return send_failure(error, stage=stage, **of_run(run))


def send_signal(error: Terminated, stage: str, **where: Any) -> Terminated:
    """Alert the team to a signal that ended a stage, unless it came from the keyboard.

    Returns:
        The error with the stage's name; `where` is what `Event.of_failure` takes.
    """
    named = Terminated(error.number, stage)
    if not named.is_interactive:
        send_failure(named, stage=stage, **where)
    return named


def flush(*, refused: bool = False, patient: bool = False) -> list[Flushed]:
    """Deliver what waits in the outbox, marked as late; never raises.

    Args:
        refused: Also what a server has refused for good.
        patient: Try again within `TOTAL_SECONDS` where a server is down.

    Returns:
        What became of the messages of each channel that had some.
    """
    try:
        load_environment()
        before = {backlog.channel: backlog.count for backlog in outbox.backlogs()}
    except (OSError, SettingsError) as error:
        log.error("what is in the outbox of alerts cannot be read: %s", error)
        return [Flushed("outbox", 0, Backlog("outbox", 0, 0, 0, reason_of(error)))]
    end = time.monotonic() + (TOTAL_SECONDS if patient else 0)
    calls = {name: partial(_flush, name, end, refused) for name in before}
    flushed = []
    for name, outcome in attempt(calls, TOTAL_SECONDS).items():
        left = outbox.backlog_of(name)
        if isinstance(outcome, BaseException):
            left = replace(left, reason=reason_of(outcome))
        delivered = max(0, before[name] - left.count)
        flushed.append(Flushed(name, delivered, left if left.count else None))
        log.info("%d late alerts sent through %s, %d left", delivered, name, left.count)
    return flushed


def _send(event: Event) -> list[Delivery]:
    sendings = {name: _Sending(name, event) for name in channel_names()}
    outcomes = attempt(sendings, TOTAL_SECONDS)
    return [
        Delivery(name, sending.error(outcomes[name]))
        for name, sending in sendings.items()
        if sending.configured
    ]


class _Sending:
    """An event on its way through one channel."""

    def __init__(self, name: str, event: Event) -> None:
        self.name, self.event = name, event
        self.end = time.monotonic() + TOTAL_SECONDS
        self.configured = True
        self.entry: Entry | None = None

    def __call__(self) -> None:
        channel = load_channel(self.name)
        self.configured = channel.configured()
        if not self.configured:
            return
        self.entry = entry = self._keep()
        channel.describe()
        if entry.file is None:
            deliver_all(channel, [entry], self.end)
            return
        if outbox.seconds_since(self.name, self.event) < SIMILAR_SECONDS:
            time.sleep(COLLECT_SHARE * TOTAL_SECONDS)
        with outbox.lock(self.name, self.end):
            # The process that had the lock may have sent it with its own alert.
            similar = [one for one in outbox.waiting(self.name) if one.group == entry.group]
            deliver_all(channel, similar, self.end)
            deliver_all(channel, outbox.waiting(self.name), end=0)

    def error(self, outcome: object) -> str | None:
        """Return why the event has not arrived, None where it has; then it waits."""
        if not isinstance(outcome, BaseException) or (self.entry and not self.entry.is_there):
            return None
        if self.entry is None:
            self._keep().failed(reason_of(outcome))
        return reason_of(outcome)

    def _keep(self) -> Entry:
        if self.event.kind == "test":
            # The person who asked for it sees the result at once.
            return Entry(Message(event=self.event))
        try:
            return outbox.put(self.name, self.event)
        except (OSError, SettingsError) as error:
            log.error("the alert could not be kept, in case it does not arrive: %s", error)
            return Entry(Message(event=self.event))


def _flush(name: str, end: float, refused: bool) -> None:
    if name not in channel_names():
        raise NotDelivered("this project has no such channel any more")
    channel = load_channel(name)
    if not channel.configured():
        raise NotDelivered("it is not configured any more, see .env.example")
    channel.describe()
    with outbox.lock(name, end):
        deliver_all(channel, outbox.waiting(name, refused=refused), end, late=True)
