"""What a model sees of a function; each candidate encodes it in its own way."""

from __future__ import annotations

import polars as pl

FEATURES = ("text", "length")


def features(rows: pl.DataFrame) -> pl.DataFrame:
    """Take them as they are."""
    return rows
