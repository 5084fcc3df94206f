"""The signals that end a process (SIGTERM, Ctrl-C), raised as an error where it works.

systemd, pods and time limits send SIGTERM, which otherwise ends Python silently. Only the
main thread is interrupted; work in other threads ends with the process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from .errors import Terminated

# For cleanup and alerts: a pod is killed half a minute after its SIGTERM.
LAST_WORDS_SECONDS = 25.0

# `uv run` forwards the signal that its whole group gets: do not count it as a second one.
SAME_WITHIN_SECONDS = 1.0

# Set by an engine whose own handlers let a stage go on; they are called first.
over_handlers = False

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)
_watching: list[bool] = []
# The first signal and when it came.
_received: list[tuple[Terminated, float]] = []


@contextmanager
def raise_signals() -> Iterator[None]:
    """Have a signal end the body with `Terminated`, and a second one end the process at once.

    No effect outside the main thread, within itself, or if an engine has its own handler; see
    `over_handlers`.
    """
    if _watching or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    ours = {
        number: handler
        for number, handler in before.items()
        # An ignored signal, as under nohup, stays ignored.
        if handler in _DEFAULTS or (over_handlers and callable(handler))
    }
    _watching.append(True)
    try:
        for number, handler in ours.items():
            signal.signal(number, _raising(handler))
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
        _watching.clear()
        _received.clear()


def end_on_signal(farewell: Callable[[Terminated], object]) -> None:
    """Call something at the first signal, then end the process, regardless of other handlers.

    For an engine that would treat the signal as the failure of one task. Call it in the main
    thread before others are started: they must not be interrupted.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)

    def wait() -> None:
        error = Terminated(signal.sigwait(_SIGNALS))
        with last_words(error), contextlib.suppress(Exception):
            farewell(error)
        os._exit(error.exit_code)

    threading.Thread(target=wait, name="signals", daemon=True).start()


@contextmanager
def last_words(error: Terminated) -> Iterator[None]:
    """Do what remains before the process ends, within the time that is left."""
    timer = threading.Timer(LAST_WORDS_SECONDS, os._exit, (error.exit_code,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _raising(handler: Any) -> Callable[[int, FrameType | None], None]:
    def end(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        for first, since in _received:
            if now - since > SAME_WITHIN_SECONDS:
                os._exit(first.exit_code)
            return
        error = Terminated(number)
        _received.append((error, now))
        if handler not in _DEFAULTS:
            handler(number, frame)
        raise error

    return end
