"""From raw rows to features: only what is known before departure. Yours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from sklearn.compose import ColumnTransformer

NUMERIC = (
    "departure_hour",
    "scheduled_minutes",
    "distance",
    "temp",
    "wind_speed",
    "visib",
    "precip",
    "pressure",
)
CATEGORICAL = ("carrier", "origin", "dest", "weekday")
FEATURES = (*NUMERIC, *CATEGORICAL)

# Features whose drift asks for a new model. The weather is monitored, but it always moves; an
# incomplete week has other weekdays.
STABLE_FEATURES = (
    "departure_hour",
    "scheduled_minutes",
    "distance",
    "carrier",
    "origin",
    "dest",
)


def features(rows: pl.DataFrame) -> pl.DataFrame:
    """Add the feature columns to validated rows; rows are neither dropped nor reordered."""
    departure = _minutes_of_day("sched_dep_time")
    arrival = _minutes_of_day("sched_arr_time")
    return rows.with_columns(
        (departure / 60).cast(pl.Float32).alias("departure_hour"),
        # Both times are local to their airport; past midnight counts on.
        ((arrival - departure) % 1440).cast(pl.Float32).alias("scheduled_minutes"),
        pl.col("distance").cast(pl.Float32),
        pl.col("date").dt.to_string("%a").alias("weekday"),
    )


def _minutes_of_day(hhmm: str) -> pl.Expr:
    clock = pl.col(hhmm).cast(pl.Int32)
    return clock // 100 * 60 + clock % 100


def encoder() -> ColumnTransformer:
    """Return the transformer from feature columns to a matrix, not yet fitted.

    It becomes part of the registered model, so serving the model needs no code from here.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    return ColumnTransformer(
        [
            ("numeric", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), NUMERIC),
            (
                "categorical",
                # Rare and unseen categories share one column.
                OneHotEncoder(
                    handle_unknown="infrequent_if_exist", min_frequency=0.01, sparse_output=False
                ),
                CATEGORICAL,
            ),
        ]
    )
