"""Many rows out of few: the sample's days, tiled until they are large."""

from __future__ import annotations

from pathlib import Path

import polars as pl

SEED = 7
# One row in a thousand breaks the contract, so that both sides have something to quarantine.
INVALID_EVERY = 1_000
# In the contract, a flight number together with these and the date identifies a row.
REST_OF_KEY = ("carrier", "origin", "sched_dep_time")


def tile(sample: list[Path], folder: Path, rows: int) -> None:
    """Write one file for each day of the sample, `rows` in all, in random order.

    Flight numbers are counted anew to keep the key unique, and the distance of a few rows is
    impossible; everything else is as in the sample.
    """
    folder.mkdir(parents=True)
    height = rows // len(sample)
    for path in sample:
        day = pl.read_parquet(path)
        number = pl.int_range(1, pl.len() + 1).over(REST_OF_KEY)
        invalid = pl.int_range(pl.len()) % INVALID_EVERY == 0
        pl.concat([day] * (height // day.height + 1)).head(height).sample(
            fraction=1, shuffle=True, seed=SEED
        ).with_columns(
            number.cast(pl.Int16).alias("flight"),
            pl.when(invalid).then(pl.lit(0, pl.Int16)).otherwise("distance").alias("distance"),
        ).write_parquet(folder / path.name)
