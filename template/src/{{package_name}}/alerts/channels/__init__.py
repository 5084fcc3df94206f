"""The channels an alert can take: every module in this folder is one, found without a list.

A channel is a file that defines what `Channel` names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..event import Event

TOTAL_SECONDS = 10.0


class NotDelivered(Exception):
    """A server did not take a message; the text says why, and holds no secret.

    Attributes:
        refused: Whether a retry cannot help; any other exception of a channel may be temporary.
        after: Seconds that the server asked to wait.
        left: Who did not get it, where others did.
    """

    def __init__(
        self, reason: str, *, refused: bool = False, after: float = 0, left: Sequence[str] = ()
    ) -> None:
        super().__init__(reason)
        self.refused, self.after, self.left = refused, after, tuple(left)


class Channel(Protocol):
    """What a module in this folder provides; all of it reads the environment at each call.

    Attributes:
        VARIABLES: The environment variables that the channel reads.
    """

    VARIABLES: tuple[str, ...]

    def configured(self) -> bool:
        """Return whether any of the channel's variables is set."""

    def describe(self) -> str:
        """Return where alerts go, without secrets; raises when the configuration is incomplete."""

    def send(self, event: Event) -> None:
        """Deliver the event, at once; raises when it did not arrive, see `NotDelivered`."""
