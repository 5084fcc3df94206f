"""A small project: a domain, its data and its settings, which the project's own tests run on.

Frozen: a team changes `domain/`, `config/` and `data/`, and these tests stay as they are.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent
DATA = ROOT / "data"
SAMPLE = DATA / "sample"
DRIFT = DATA / "drift"
# The day that most tests train for. Days before it are there, and a week after it.
PARTITION = "2013-01-28"
# The newest day in `DRIFT`.
DRIFTED = "2013-07-10"
# Makes a process run on these settings and this domain, which core/paths.py and core/optional.py
# of the project look for.
VARIABLES = {
    "PIPELINE_HOME": str(ROOT),
    "PIPELINE_DOMAIN": "example.domain",
    "PYTHONPATH": str(ROOT.parent),
}
