"""One call of the model for several requests."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

# Beyond it, more rows a call save nothing.
MOST_ROWS = 1_000


@dataclass
class _Job:
    rows: pl.DataFrame
    taken: bool = False
    done: threading.Event = field(default_factory=threading.Event)
    values: NDArray[np.float64] | None = None
    error: Exception | None = None


class Batcher:
    """Predicts for several requests at once while the model is busy, and never waits for more.

    A call for a few rows costs about as much as one for a single row. Whoever finds the model free
    predicts for all that wait; each gets its own rows' values, or the error of its own rows.

    Args:
        predict: Returns a value for each row.
        slots: How many calls of it may run at once.
    """

    def __init__(
        self, predict: Callable[[pl.DataFrame], NDArray[np.float64]], slots: int = 1
    ) -> None:
        self._predict = predict
        self._slots = threading.Semaphore(slots)
        self._lock = threading.Lock()
        self._waiting: deque[_Job] = deque()

    def __call__(self, rows: pl.DataFrame) -> NDArray[np.float64]:
        """Return the prediction of each row; blocks until it is there."""
        job = _Job(rows)
        with self._lock:
            self._waiting.append(job)
        with self._slots:
            while not job.taken:
                self._run(self._take())
        job.done.wait()
        if job.error is not None:
            raise job.error
        assert job.values is not None
        return job.values

    def _take(self) -> list[_Job]:
        with self._lock:
            jobs: list[_Job] = []
            rows = 0
            while self._waiting and (not jobs or rows + self._waiting[0].rows.height <= MOST_ROWS):
                job = self._waiting.popleft()
                job.taken = True
                rows += job.rows.height
                jobs.append(job)
            return jobs

    def _run(self, jobs: list[_Job]) -> None:
        if not jobs:
            return
        try:
            frame = pl.concat([job.rows for job in jobs]) if len(jobs) > 1 else jobs[0].rows
            values = self._predict(frame)
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].error = error
                jobs[0].done.set()
                return
            # One request's rows must not spoil another's.
            for job in jobs:
                self._run([job])
            return
        start = 0
        for job in jobs:
            job.values = values[start : start + job.rows.height]
            start += job.rows.height
            job.done.set()
