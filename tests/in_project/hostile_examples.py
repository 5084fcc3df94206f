"""How often hypothesis tries a property with hostile input.

HOSTILE_EXAMPLES=50 tries fifty times as many, and others each time.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings

FACTOR = int(os.environ.get("HOSTILE_EXAMPLES", "1"))


def examples(count: int, **options: Any) -> settings:
    """Return how often a property is tried: the same examples each time unless more are wanted.

    Args:
        count: How many examples.
        options: More of hypothesis's settings.
    """
    return settings(
        max_examples=count * FACTOR,
        derandomize=FACTOR == 1,
        deadline=None,
        database=None,
        **options,
    )
