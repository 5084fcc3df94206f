"""The channels an alert can take: every module in this folder is one, found without a list.

A channel is a file that defines what `Channel` names.
"""

from __future__ import annotations

from typing import Protocol

from ..event import Event

TOTAL_SECONDS = 10.0


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
        """Deliver the event; raises when it did not arrive."""
