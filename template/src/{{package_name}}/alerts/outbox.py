"""Alerts still to be sent: one file per message and channel below var/alerts/outbox.

A message is there from before it is sent until a server has taken it, so that neither a server
that is down nor the end of the process loses it. One process at a time sends through a channel.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from ..core.outcomes import Stored
from ..core.paths import project_root
from .event import Event

_LOOK_SECONDS = 0.05


class Message(Stored):
    """An event on its way.

    Attributes:
        error: Why it did not arrive when it was tried last.
        refused: Whether the server will never take it.
    """

    event: Event
    error: str = "its process ended before an answer came"
    refused: bool = False


@dataclass
class Entry:
    """A message and the file that keeps it; None where it is not kept."""

    message: Message
    file: Path | None = None

    @property
    def is_there(self) -> bool:
        """Whether it is still undelivered."""
        return self.file is None or self.file.exists()

    @property
    def group(self) -> tuple[object, ...]:
        """What it has in common with messages that may go as one."""
        return self.message.event.group

    def failed(self, error: str, *, refused: bool = False, left: tuple[str, ...] = ()) -> None:
        """Keep why it did not arrive, and who did not get it where others did."""
        event = self.message.event
        event = event.model_copy(update={"only_to": left or event.only_to})
        self.message = Message(event=event, error=error, refused=refused)
        # What it said before is still there.
        with suppress(OSError):
            self.write()

    def write(self) -> None:
        """Keep the message as it is now; raises OSError."""
        if self.file is None:
            return
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self.file.with_suffix(f".{uuid4().hex}")
        temporary.write_text(self.message.model_dump_json(), encoding="utf-8")
        temporary.replace(self.file)

    def delivered(self) -> None:
        """Forget the message, and remember when one of its group went out."""
        if self.file is not None:
            self.file.unlink(missing_ok=True)
            _last_sent(self.file.parent, self.message.event).touch()


def folder() -> Path:
    """Return where messages wait."""
    return project_root() / "var" / "alerts" / "outbox"


@dataclass(frozen=True)
class Backlog:
    """What waits for a channel.

    Attributes:
        count: How many messages, all in all.
        refused: How many of them the server will never take.
        unreadable: How many files of them cannot be read.
        reason: Why the newest of the others did not arrive.
    """

    channel: str
    count: int
    refused: int
    unreadable: int
    reason: str

    def __str__(self) -> str:
        """Return one line for people."""
        some = {"refused": self.refused, "not readable": self.unreadable}
        split = "".join(f", {count} {what}" for what, count in some.items() if count)
        return f"{self.channel}: {self.count} left{split} ({self.reason})"


def backlogs() -> list[Backlog]:
    """Return what waits, for each channel, whether or not it is still in the project."""
    place = folder()
    found = sorted(one.name for one in place.iterdir() if one.is_dir()) if place.is_dir() else []
    return [backlog for name in found if (backlog := backlog_of(name)).count]


def backlog_of(channel: str) -> Backlog:
    """Return what waits for a channel."""
    count, messages = len(_files(channel)), [one.message for one in waiting(channel, refused=True)]
    refused = sum(one.refused for one in messages)
    reason = messages[-1].error if messages else "read them, then remove them"
    return Backlog(channel, count, refused, count - len(messages), reason)


def put(channel: str, event: Event) -> Entry:
    """Keep an event for a channel; raises OSError."""
    name = f"{event.time:%Y%m%dT%H%M%S%f}-{uuid4().hex[:8]}.json"
    entry = Entry(Message(event=event), folder() / channel / name)
    entry.write()
    return entry


def waiting(channel: str, *, refused: bool = False) -> list[Entry]:
    """Return what waits for a channel, the oldest first; with `refused`, refused alerts as well.

    A file that is not readable is left out.
    """
    entries = []
    for file in _files(channel):
        # Another process may have just delivered it, and one odd file must not stop the rest.
        with suppress(OSError, ValueError):
            message = Message.model_validate_json(file.read_text("utf-8"))
            if refused or not message.refused:
                entries.append(Entry(message, file))
    return entries


def seconds_since(channel: str, event: Event) -> float:
    """Return how long ago an event of the same group went out; infinite where none did."""
    try:
        return time.time() - _last_sent(folder() / channel, event).stat().st_mtime
    except OSError:
        return math.inf


@contextmanager
def lock(channel: str, end: float) -> Iterator[None]:
    """Be the only process that sends through a channel; the system frees it when one is killed.

    Raises:
        TimeoutError: Another one still had it at `end`, a time of `time.monotonic`.
        OSError: The disk takes no file.
    """
    path = folder() / f"{channel}.lock"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                pass
            except OSError:
                # A file system without locks.
                break
            if time.monotonic() >= end:
                raise TimeoutError("another process is still sending")
            time.sleep(_LOOK_SECONDS)
        yield


def _last_sent(place: Path, event: Event) -> Path:
    kind = hashlib.sha256(repr(event.group).encode()).hexdigest()
    return place / f"{kind[:16]}.sent"


def _files(channel: str) -> list[Path]:
    return sorted((folder() / channel).glob("*.json"))
