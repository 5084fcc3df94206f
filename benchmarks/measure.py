"""What a command costs: CPU seconds, wall seconds and peak memory of it and all it starts."""

from __future__ import annotations

import contextlib
import ctypes
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psutil

SAMPLE_SECONDS = 0.05
SHOWN_LINES = 20
# <linux/prctl.h>
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Usage:
    """What one call of a command cost.

    Attributes:
        cpu: User and system seconds of the command and of every process it started. Elsewhere than
            on Linux: that it waited for; what outlives its parent, like a fork server, is missing.
        wall: Seconds from start to end.
        peak: Largest memory of the process tree in bytes, sampled: the sum of the proportional set
            sizes (PSS: a page that n processes share counts 1/n for each).
    """

    cpu: float
    wall: float
    peak: int


class CommandError(Exception):
    """A measured command ended with an error; the message has the last lines it printed."""


@dataclass(frozen=True)
class Command:
    """A command line with the folder and the environment it runs in."""

    arguments: Sequence[str | Path]
    folder: Path
    environment: Mapping[str, str]

    def measure(self) -> Usage:
        """Run it once.

        Raises:
            CommandError: It ended with an error.
        """
        adopt_orphans()
        with tempfile.TemporaryFile() as output:
            start = time.perf_counter()
            process = subprocess.Popen(
                self.arguments,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                with MemorySampler(process.pid) as memory:
                    # Not process.wait(): this one also tells what the command used.
                    _, status, used = os.wait4(process.pid, 0)
            except BaseException:
                process.kill()
                raise
            wall = time.perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != 0:
                output.seek(0)
                lines = output.read().decode(errors="replace").splitlines()[-SHOWN_LINES:]
                name = Path(self.arguments[0]).name
                raise CommandError("\n".join([f"{name} ended with {process.returncode}:", *lines]))
        cpu = used.ru_utime + used.ru_stime + sum(map(cpu_of_orphan, memory.seen))
        return Usage(cpu=cpu, wall=wall, peak=memory.peak)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def cpu_of_orphan(pid: int) -> float:
    """Wait for an adopted process; returns its CPU seconds, and 0 for one that is not ours."""
    try:
        _, _, used = os.wait4(pid, 0)
    except ChildProcessError:
        return 0.0
    return used.ru_utime + used.ru_stime


class MemorySampler:
    """Watches the memory of a process and its descendants from a thread.

    Attributes:
        peak: Bytes.
        seen: The descendants' process ids.
    """

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self.seen: set[int] = set()
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemorySampler:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            with contextlib.suppress(psutil.NoSuchProcess):
                root = psutil.Process(self._pid)
                children = root.children(recursive=True)
                family = [root, *children]
                self.seen |= {child.pid for child in children}
                self.peak = max(self.peak, sum(map(_memory, family)))


def _memory(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        # Systems other than Linux know the resident set only.
        return int(getattr(process.memory_full_info(), "pss", 0) or process.memory_info().rss)
    return 0


def median(usages: Iterable[Usage]) -> Usage:
    """Return the median of each number on its own."""
    several = list(usages)
    return Usage(
        cpu=statistics.median(usage.cpu for usage in several),
        wall=statistics.median(usage.wall for usage in several),
        peak=int(statistics.median(usage.peak for usage in several)),
    )
