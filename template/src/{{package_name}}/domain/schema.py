"""The data contract: which columns a partition has, of what type, within which bounds.

A row that breaks a check is quarantined; a partition is rejected when too many of its rows do
(`[validation]` in config/pipeline.toml). Yours: write your own data's contract here.
"""

from __future__ import annotations

from typing import ClassVar

import pandera.polars as pa
import polars as pl

# The columns that identify a row: unique within a partition, and kept beside each prediction.
KEY = ("date", "carrier", "flight", "origin", "sched_dep_time")

# The column with the day that a row belongs to.
TIME = "date"

# Columns whose distribution must not jump from one day to the next (population stability index).
STABLE_COLUMNS = ("carrier", "origin", "distance", "sched_dep_time")

# Arrives later than the rest of the row, so a partition may be scored without it.
LABEL = "arr_delay"

CARRIERS = [
    *("9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL"),
    *("HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV"),
]


class Flights(pa.DataFrameModel):
    """One scheduled flight out of New York, with the weather at its origin in that hour.

    `max_null_share` in a column's metadata replaces the limit of the configuration.
    """

    date: pl.Date
    carrier: str = pa.Field(isin=CARRIERS)
    flight: pl.Int16 = pa.Field(gt=0)
    origin: str = pa.Field(isin=["EWR", "JFK", "LGA"])
    dest: str = pa.Field(str_matches=r"^[A-Z]{3}$")
    sched_dep_time: pl.Int16 = pa.Field(in_range={"min_value": 0, "max_value": 2359})
    sched_arr_time: pl.Int16 = pa.Field(in_range={"min_value": 0, "max_value": 2400})
    distance: pl.Int16 = pa.Field(in_range={"min_value": 10, "max_value": 6000})
    temp: pl.Float32 = pa.Field(nullable=True, in_range={"min_value": -40, "max_value": 130})
    wind_speed: pl.Float32 = pa.Field(nullable=True, in_range={"min_value": 0, "max_value": 150})
    visib: pl.Float32 = pa.Field(nullable=True, in_range={"min_value": 0, "max_value": 100})
    precip: pl.Float32 = pa.Field(nullable=True, in_range={"min_value": 0, "max_value": 20})
    # The station's barometer is often out for hours.
    pressure: pl.Float32 = pa.Field(
        nullable=True,
        in_range={"min_value": 850, "max_value": 1100},
        metadata={"max_null_share": 0.75},
    )
    # Null for flights that were cancelled or diverted, and for all until they have landed.
    arr_delay: pl.Int16 = pa.Field(
        nullable=True,
        in_range={"min_value": -300, "max_value": 3000},
        metadata={"max_null_share": 0.4},
    )

    class Config:
        """Columns beyond the contract are dropped."""

        unique: ClassVar = list(KEY)
        strict = "filter"


CONTRACT = Flights
