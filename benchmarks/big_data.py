"""Large tables: the sample's days, tiled until they are large, and a wide table of any kind."""

from __future__ import annotations

from datetime import datetime
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


def wide(path: Path, rows: int) -> None:
    """Write a table of 30 columns, as Parquet or CSV by the file's name.

    An id, a time over sixty days, two classes, twenty numbers and seven columns of twelve words.
    """
    number = pl.int_range(rows)
    minutes = (number * 60 * 24 * 60 / rows).cast(pl.Int64)
    frame = pl.select(
        number.alias("id"),
        (pl.lit(datetime(2026, 1, 1)) + pl.duration(minutes=minutes)).alias("at"),
        (number.shuffle(SEED) % 2).alias("label"),
        *((number.shuffle(one) / rows).alias(f"number_{one}") for one in range(20)),
        *(
            pl.format("word {}", number.shuffle(100 + one) % 12).alias(f"word_{one}")
            for one in range(7)
        ),
    )
    frame.write_parquet(path) if path.suffix == ".parquet" else frame.write_csv(path)
