"""The scaffolds: answers that together hold every pair of them."""

from __future__ import annotations

from .template import ROOT

SCAFFOLDS = sorted((ROOT / "scaffolds").glob("*.yml"))
IDS = [path.stem for path in SCAFFOLDS]
