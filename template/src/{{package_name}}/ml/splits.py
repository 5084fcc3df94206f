"""Which days a model learns from, is tuned on and is judged on: later days never come first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta


def holdout_start(last: date, days: int) -> date:
    """Return the first of the newest `days` days, which are kept from training."""
    return last - timedelta(days=days - 1)


def validation_start(days: Sequence[date]) -> date:
    """Return the first of the newest fifth of the training days (at least one), oldest day first.

    Trials of parameters are fitted on the days before and compared on those from it on.
    """
    return days[-max(1, len(days) // 5)]
