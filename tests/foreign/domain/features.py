"""What a model sees of a tumour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from sklearn.preprocessing import StandardScaler

FEATURES = ("mean_radius", "mean_texture", "mean_smoothness", "growth")


def features(rows: pl.DataFrame) -> pl.DataFrame:
    """Compare the largest cells with the mean ones."""
    return rows.with_columns(growth=pl.col("worst_area") / pl.col("mean_radius") ** 2)


def encoder() -> StandardScaler:
    """Scale all of them."""
    from sklearn.preprocessing import StandardScaler

    return StandardScaler()
