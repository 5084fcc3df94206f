"""A hard time limit for a stage, on any engine.

At the limit the stage gets a `StageTimeout`, where Python can interrupt it. A stage that cannot be
interrupted (native code, a thread that waits) ends with its whole process a little later.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from .errors import StageTimeout

# EX_TEMPFAIL of sysexits.h: a retry may help.
EXIT_CODE = 75
GRACE_SECONDS = 30.0
BEFORE_EXIT_SECONDS = 30.0


@contextmanager
def deadline(
    stage: str, seconds: float, before_exit: Callable[[StageTimeout], None]
) -> Iterator[None]:
    """Limit how long the body may run.

    Args:
        stage: Its name, for the message.
        seconds: The limit. The process ends the shorter of `GRACE_SECONDS` and `seconds` later.
        before_exit: Called just before the process ends, as nothing after the body will run.

    Raises:
        StageTimeout: The limit was reached, and the body could be interrupted.
    """
    error = StageTimeout(stage, seconds)

    def end_process() -> None:
        # Whatever the stage hangs on may also make this hang.
        farewell = threading.Thread(target=before_exit, args=(error,), daemon=True)
        farewell.start()
        farewell.join(BEFORE_EXIT_SECONDS)
        os._exit(EXIT_CODE)

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise error

    watchdog = threading.Timer(seconds + min(GRACE_SECONDS, seconds), end_process)
    watchdog.name = f"deadline of {stage}"
    watchdog.daemon = True
    watchdog.start()
    interruptible = _alarm_is_free()
    if interruptible:
        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        if interruptible:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        watchdog.cancel()


def _alarm_is_free() -> bool:
    """Return whether this is the main thread and the engine has not set its own alarm."""
    return (
        hasattr(signal, "SIGALRM")
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    )
