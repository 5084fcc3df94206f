"""Imports what stages import, once for all steps of a run on this machine."""

from __future__ import annotations

import contextlib

from ...core import optional
from ...stages import STAGES

for stage in STAGES:
    optional.load(f"stages.{stage}")
import matplotlib.pyplot  # noqa: E402, F401

with contextlib.suppress(ModuleNotFoundError):
    import xgboost  # noqa: F401
