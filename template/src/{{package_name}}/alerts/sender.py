"""Sends an event through every channel that is configured.

Whatever a channel does, `send` never raises and never takes longer than `TOTAL_SECONDS`, so that
an alert cannot hide the error it is about.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ConfigDict

from ..core import optional
from ..core.errors import SettingsError
from ..core.logs import get_logger
from ..core.paths import project_root
from ..core.redact import redact
from ..core.refs import Run
from ..core.settings import load_environment
from .channels import TOTAL_SECONDS, Channel
from .event import Event, run_url

log = get_logger(__name__)

CHANNELS = "alerts.channels"


class Delivery(BaseModel):
    """What became of an event in one channel; `error` is None when it arrived."""

    model_config = ConfigDict(frozen=True)

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
    return send_failure(
        error,
        pipeline=run.pipeline,
        stage=stage,
        partition=run.partition,
        run_key=run.key,
        tracking_url=run_url(run.tracking_run_id),
    )


def undelivered() -> int:
    """Return how many alerts did not arrive since var/alerts/undelivered.jsonl was last removed."""
    file = _undelivered_file()
    return len(file.read_text(encoding="utf-8").splitlines()) if file.exists() else 0


def _undelivered_file() -> Path:
    return project_root() / "var" / "alerts" / "undelivered.jsonl"


def _deliver(event: Event) -> list[Delivery]:
    outcomes: dict[str, Delivery | None] = {}

    def attempt(name: str) -> None:
        outcomes[name] = _attempt(name, event)

    # Libraries limit each read, not the whole exchange; a thread can be left behind.
    threads = {
        name: threading.Thread(target=attempt, args=(name,), daemon=True, name=f"alert-{name}")
        for name in channel_names()
    }
    deadline = time.monotonic() + TOTAL_SECONDS
    for thread in threads.values():
        thread.start()
    for thread in threads.values():
        thread.join(max(0.0, deadline - time.monotonic()))
    late = f"no answer within {TOTAL_SECONDS:g} s"
    finished = [outcomes.get(name, Delivery(channel=name, error=late)) for name in threads]
    return [delivery for delivery in finished if delivery is not None]


def _attempt(name: str, event: Event) -> Delivery | None:
    try:
        channel = load_channel(name)
        if not channel.configured():
            return None
        channel.send(event)
    except BaseException as error:
        # Also SystemExit: nothing above this thread would hear of it.
        return Delivery(channel=name, error=redact(f"{type(error).__name__}: {error}"))
    return Delivery(channel=name)


def _keep(event: Event, delivery: Delivery) -> None:
    record = {
        "time": datetime.now(UTC).isoformat(),
        **delivery.model_dump(),
        "event": event.model_dump(),
    }
    try:
        file = _undelivered_file()
        file.parent.mkdir(parents=True, exist_ok=True)
        # One write, so that tasks that fail at the same time do not mix their lines.
        with file.open("ab", buffering=0) as lines:
            lines.write(f"{json.dumps(record)}\n".encode())
    except (OSError, SettingsError) as error:
        log.error("the undelivered alert could not be kept: %s", error)
