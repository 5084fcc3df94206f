"""Which rows of a table belong to a partition, by its time column."""

from __future__ import annotations

from functools import partial

import polars as pl

from ..core.cadence import Cadence, Partition
from ..interface import load_schema
from .conform import moments


def clock_of(rows: pl.LazyFrame, name: str, cadence: Cadence) -> pl.Expr:
    """Return times, also those given as text, in the zone that partitions are cut in.

    Args:
        rows: The table.
        name: The contract's TIME.
        cadence: What partitions span.

    Raises:
        polars.exceptions.SchemaError: The column is missing, or of another type.
    """
    dtype, time = rows.collect_schema().get(name), pl.col(name)
    if dtype == pl.String:
        dtype = load_schema().types[name]
        time = time.map_batches(partial(moments, wanted=dtype), return_dtype=dtype)
    if dtype is None or not (dtype == pl.Date or dtype == pl.Datetime):
        seen = "missing" if dtype is None else f"{dtype}"
        raise pl.exceptions.SchemaError(f"{name} is {seen}, not a date or datetime")
    return cadence.clock(time, dtype)


def rows_of(rows: pl.LazyFrame, name: str, cadence: Cadence, partition: Partition) -> pl.LazyFrame:
    """Return the rows of a partition; raises like `clock_of`.

    A row without a readable time goes with the row before it, so that validation counts, names and
    quarantines it.
    """
    clock = clock_of(rows, name, cadence)
    if rows.select(clock.has_nulls()).collect().item():
        clock = clock.forward_fill().backward_fill()
    return rows.filter(cadence.holds(clock, partition))
