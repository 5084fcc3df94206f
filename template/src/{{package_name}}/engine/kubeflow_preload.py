"""Imports what stages import, once for all steps of a run on this machine."""

from __future__ import annotations

import importlib

from ..stages import STAGES
from ..stages import __name__ as stages

for name in (*(f"{stages}.{stage}" for stage in STAGES), "matplotlib.pyplot", "xgboost"):
    importlib.import_module(name)
