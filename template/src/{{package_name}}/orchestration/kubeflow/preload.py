"""Imports what stages import, once for all steps of a run on this machine."""

from __future__ import annotations

from ...core import optional
from ...stages import STAGES
from .. import libraries as libraries

for stage in STAGES:
    optional.load(f"stages.{stage}")
