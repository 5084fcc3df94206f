"""Alerts: one event, sent through every channel that is configured.

Each module in this folder is a channel: a file that defines `configured`, `describe` and `send` is
found without being listed anywhere. Whatever a channel does, `send` here never raises and never
takes longer than `TOTAL_SECONDS`, so that an alert cannot hide the error it is about.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import pkgutil
import threading
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ..errors import DataRejected, SettingsError
from ..logs import get_logger
from ..paths import project_root
from ..redact import redact
from ..settings import load_environment, load_settings

log = get_logger(__name__)

CONNECT_SECONDS = 5.0
TOTAL_SECONDS = 10.0

Kind = Literal["failure", "data_rejected", "champion_changed", "drift", "test"]

_TITLES: dict[Kind, str] = {
    "failure": "Failed",
    "data_rejected": "Data rejected",
    "champion_changed": "New champion",
    "drift": "Drift",
    "test": "Test alert",
}


def _without_secrets(value: Any) -> Any:
    return redact(value) if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_without_secrets)]


class Channel(Protocol):
    """What a module in this folder provides; all of it reads the environment at each call.

    Attributes:
        VARIABLES: The names of what it reads there.
    """

    VARIABLES: tuple[str, ...]

    def configured(self) -> bool:
        """Return whether any of the channel's variables is set."""

    def describe(self) -> str:
        """Return where alerts go, without secrets; raises when the configuration is incomplete."""

    def send(self, event: Event) -> None:
        """Deliver the event; raises when it did not arrive."""


def _project_name() -> str:
    try:
        return load_settings().project.name or "pipeline"
    except SettingsError:
        # Bad settings are themselves worth an alert.
        return "pipeline"


class Event(BaseModel):
    """Something that people should know; its texts hold no secrets.

    Attributes:
        summary: One sentence.
        pipeline: The DAG, job or flow.
        stage: The task.
        error: Type and message of the exception.
        try_number: Which attempt it was, from 1.
        log_url: The task's log in the engine's UI.
        tracking_url: The run in MLflow.
        details: Anything else, as label and value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    summary: Text
    project: Text = Field(default_factory=_project_name)
    pipeline: Text | None = None
    stage: Text | None = None
    partition: Text | None = None
    run_key: Text | None = None
    error: Text | None = None
    try_number: int | None = None
    log_url: Text | None = None
    tracking_url: Text | None = None
    details: dict[str, Text] = {}

    @classmethod
    def from_exception(
        cls,
        error: BaseException | str | None,
        *,
        pipeline: str | None = None,
        stage: str | None = None,
        partition: date | str | None = None,
        run_key: str | None = None,
        try_number: int | None = None,
        log_url: str | None = None,
        tracking_url: str | None = None,
    ) -> Event:
        """Return the event for a failed stage; engines that lost the exception may pass its text.

        A `DataRejected`, also as the cause of an engine's own exception, becomes `data_rejected`.
        """
        rejected = _find_rejection(error)
        error = rejected or error
        day = f" for partition {partition}" if partition else ""
        summary = f"{pipeline or 'The pipeline'} failed in {stage or 'an unknown stage'}{day}."
        if rejected:
            summary = (
                f"Partition {rejected.partition} was rejected; nothing was trained, scored or "
                "promoted."
            )
        return cls(
            kind="data_rejected" if rejected else "failure",
            summary=summary,
            pipeline=pipeline,
            stage=stage,
            partition=f"{partition}" if partition else None,
            run_key=run_key,
            error=f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else error,
            try_number=try_number,
            log_url=log_url,
            tracking_url=tracking_url,
            details={"Report": rejected.report_uri} if rejected and rejected.report_uri else {},
        )

    @classmethod
    def test(cls) -> Event:
        """Return the event that proves a channel works."""
        return cls(kind="test", summary="A test: alerts of this project arrive here.")

    @property
    def title(self) -> str:
        """The event in one line."""
        where = " / ".join(part for part in (self.pipeline, self.stage, self.partition) if part)
        title = f"{_TITLES[self.kind]}: {self.project}" + (f" - {where}" if where else "")
        return " ".join(title.split())

    @property
    def facts(self) -> dict[str, str]:
        """What is known, as label and value, in the order in which people read it."""
        known = {
            "Project": self.project,
            "Pipeline": self.pipeline,
            "Stage": self.stage,
            "Partition": self.partition,
            "Try": f"{self.try_number}" if self.try_number is not None else None,
            "Run": self.run_key,
            **self.details,
        }
        return {label: value for label, value in known.items() if value}

    @property
    def links(self) -> dict[str, str]:
        """Where to read on: label and web address."""
        addresses = {"Log": self.log_url, "MLflow run": self.tracking_url}
        return {
            label: address
            for label, address in addresses.items()
            if address and address.startswith(("http://", "https://"))
        }


class Delivery(BaseModel):
    """What became of an event in one channel; `error` is None when it arrived."""

    model_config = ConfigDict(frozen=True)

    channel: str
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether it arrived."""
        return self.error is None


def channels() -> list[str]:
    """Return the names of the channels this project has, configured or not."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_channel(name: str) -> Channel:
    """Import a channel."""
    return cast(Channel, importlib.import_module(f"{__name__}.{name}"))


def variables() -> list[str]:
    """Return the names of the variables that this project's channels read."""
    return [name for channel in channels() for name in load_channel(channel).VARIABLES]


def send(event: Event) -> list[Delivery]:
    """Send an event through every configured channel at once.

    Never raises. What did not arrive is logged and kept in var/alerts/undelivered.jsonl.

    Returns:
        One delivery a configured channel; none when nobody was told.
    """
    with contextlib.suppress(SettingsError):
        load_environment()
    deliveries = _deliver(event)
    if not deliveries:
        log.warning(
            "nobody was told of '%s', because no alert channel is configured: set the variables "
            "of one (%s) that .env.example names. %s",
            event.title,
            ", ".join(channels()) or "this project has none",
            event.error or event.summary,
        )
    for delivery in deliveries:
        if delivery.ok:
            log.info("alert sent through %s: %s", delivery.channel, event.title)
        else:
            log.error("alert not sent through %s: %s", delivery.channel, delivery.error)
            _keep(event, delivery)
    return deliveries


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
        for name in channels()
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


def _find_rejection(error: BaseException | str | None) -> DataRejected | None:
    while isinstance(error, BaseException):
        if isinstance(error, DataRejected):
            return error
        error = error.__cause__
    return None
