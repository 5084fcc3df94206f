"""Calls whose failure or hang must not stop the caller."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")


def attempt(calls: Mapping[str, Callable[[], T]], seconds: float) -> dict[str, T | BaseException]:
    """Make calls in parallel and return what each returned or raised.

    A call that has not ended after `seconds` counts as a `TimeoutError` and goes on unobserved:
    libraries limit each read, not the whole exchange, and a thread cannot be stopped.
    """
    late = TimeoutError(f"no answer within {seconds:g} s")
    outcomes: dict[str, T | BaseException] = dict.fromkeys(calls, late)

    def make(name: str) -> None:
        try:
            outcomes[name] = calls[name]()
        except BaseException as error:
            # Also SystemExit: nothing above this thread would hear of it.
            outcomes[name] = error

    threads = [threading.Thread(target=make, args=(name,), daemon=True) for name in calls]
    end = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return outcomes.copy()
