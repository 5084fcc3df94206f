"""Sends an event through every channel that is configured.

Whatever a channel does, `send` never raises and never takes longer than `TOTAL_SECONDS`, so that
an alert cannot hide the error it is about.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

from ..core import optional
from ..core.attempt import attempt
from ..core.errors import SettingsError
from ..core.logs import get_logger
from ..core.paths import project_root
from ..core.redact import redact
from ..core.refs import Run
from ..core.settings import load_environment
from .channels import TOTAL_SECONDS, Channel
from .event import Event, of_run

log = get_logger(__name__)

CHANNELS = "alerts.channels"


@dataclass(frozen=True)
class Delivery:
    """What became of an event in one channel; `error` is None when it arrived."""

    channel: str
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether it arrived."""
        return self.error is None


def channel_names() -> list[str]:
    """Return the names of the channels this project has, configured or not."""
    return optional.names(CHANNELS)


def load_channel(name: str) -> Channel:
    """Import a channel."""
    return cast(Channel, optional.load(f"{CHANNELS}.{name}"))


def variables() -> list[str]:
    """Return the names of the variables that this project's channels read."""
    return [name for channel in channel_names() for name in load_channel(channel).VARIABLES]


def send(event: Event) -> list[Delivery]:
    """Send an event through every configured channel at once.

    Never raises. What did not arrive is logged and kept in var/alerts/undelivered.jsonl.

    Returns:
        One delivery per configured channel; none when nobody was told.
    """
    with contextlib.suppress(SettingsError):
        load_environment()
    deliveries = _deliver(event)
    if not deliveries:
        log.warning(
            "nobody was told of '%s', because no alert channel is configured: set the variables "
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
            _keep(event, delivery)
    return deliveries


def send_failure(error: BaseException | str | None, **where: Any) -> list[Delivery]:
    """Tell the team of a failed stage; `where` is what `Event.of_failure` takes."""
    return send(Event.of_failure(error, **where))


def send_failure_of(run: Run, stage: str, error: BaseException) -> list[Delivery]:
    """Tell the team of a stage of a run that failed in this process."""
    return send_failure(error, stage=stage, **of_run(run))


def undelivered() -> int:
    """Return how many alerts did not arrive since var/alerts/undelivered.jsonl was last removed."""
    file = _undelivered_file()
    return len(file.read_text(encoding="utf-8").splitlines()) if file.exists() else 0


def _undelivered_file() -> Path:
    return project_root() / "var" / "alerts" / "undelivered.jsonl"


def _deliver(event: Event) -> list[Delivery]:
    calls = {name: partial(_send_through, name, event) for name in channel_names()}
    deliveries = []
    for name, outcome in attempt(calls, TOTAL_SECONDS).items():
        if isinstance(outcome, BaseException):
            deliveries.append(Delivery(name, redact(f"{type(outcome).__name__}: {outcome}")))
        elif outcome:
            deliveries.append(Delivery(name))
    return deliveries


def _send_through(name: str, event: Event) -> bool:
    channel = load_channel(name)
    configured = channel.configured()
    if configured:
        channel.send(event)
    return configured


def _keep(event: Event, delivery: Delivery) -> None:
    now = datetime.now(UTC).isoformat()
    record = {"time": now, **asdict(delivery), "event": event.model_dump()}
    try:
        file = _undelivered_file()
        file.parent.mkdir(parents=True, exist_ok=True)
        # One write, so that tasks that fail at the same time do not mix their lines.
        with file.open("ab", buffering=0) as lines:
            lines.write(f"{json.dumps(record)}\n".encode())
    except (OSError, SettingsError) as error:
        log.error("the undelivered alert could not be kept: %s", error)
