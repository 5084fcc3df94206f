"""Which features keep their distribution: found by looking at past windows as monitoring would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from ...core.cadence import Partition
from ...ml.drift import psi
from .look import Table, read_file
from .plan import Plan
from .texts import shown

# At most this many past windows are looked at; fewer than three say nothing.
MOST_WINDOWS, FEWEST_WINDOWS = 12, 3
# A feature that moved in a larger share of them would raise the alarm for nothing.
MAX_MOVED = 0.1
# Features with such names move with time.
PARTS_OF_TIME = {"year", "quarter", "month", "week", "weekday", "day", "hour", "minute"}
MOST_FILES, ROWS_OF_FILE = 1_000, 5_000


def max_psi(rows: int) -> float:
    """Return the limit for the population stability index of so many rows.

    By chance alone, the index of n rows in ten bins is about 10 / n, see `ml.drift.psi`.
    """
    return round(0.2 + 20 / max(1, rows), 2)


def find_steady(table: Table, plan: Plan) -> Plan:
    """Name the features whose drift means something.

    At moments spread over the past, the window that would be watched is compared with those that a
    model would have learned from by then. A feature that drifts in more than a tenth of these looks
    moves by itself, for example with the season.
    """
    features = (*plan.numeric, *plan.categorical)
    steady = tuple(name for name in features if not (plan.time and name.lower() in PARTS_OF_TIME))
    looks = _looks(table, plan, features)
    if len(looks) < FEWEST_WINDOWS:
        if plan.windows.newest:
            said = f"{len(looks)} past windows are too few to see which features move by themselves"
            plan = replace(plan, reasons=plan.reasons | {"steady": said})
        return replace(plan, steady=steady)
    moved = {name: sum(_has_moved(*look, name) for look in looks) for name in steady}
    most = MAX_MOVED * len(looks)
    restless = [f"{name} ({count})" for name, count in moved.items() if count > most]
    said = f"drift in {len(looks)} past windows was counted"
    if restless:
        said += f"; these moved by themselves: {shown(restless)}"
    steady = tuple(name for name, count in moved.items() if count <= most)
    return replace(plan, steady=steady, reasons=plan.reasons | {"steady": said})


def _looks(
    table: Table, plan: Plan, features: Sequence[str]
) -> list[tuple[pl.DataFrame, pl.DataFrame]]:
    """Return what was learned from and what was watched, for windows spread over the past."""
    windows = plan.windows
    if not windows.newest:
        return []
    rows = _rows_by_partition(table, plan, features)
    names = sorted(rows)
    learned = windows.window - windows.holdout
    ends = range(learned + windows.watched, len(names) + 1)
    count = min(MOST_WINDOWS, len(ends))
    found = []
    for number in range(count):
        end = ends[-1 - number * len(ends) // count]
        watched = names[end - windows.watched : end]
        before = names[end - windows.watched - learned : end - windows.watched]
        reference, current = (pl.concat([rows[one] for one in some]) for some in (before, watched))
        found.append((reference, current))
    return found


def _rows_by_partition(
    table: Table, plan: Plan, features: Sequence[str]
) -> dict[Partition, pl.DataFrame]:
    if plan.time is None:
        files = sorted(table.source.names.items())[-MOST_FILES:]
        read = {name: read_file(table, path).select(features) for name, path in files}
        return {
            name: rows.gather_every(-(-rows.height // ROWS_OF_FILE))
            for name, rows in read.items()
            if rows.height
        }
    clock = plan.cadence.clock(pl.col(plan.time), table.columns[plan.time].dtype)
    rows = table.sample.select(*features, plan.cadence.names(clock).alias("\x1f")).drop_nulls(
        "\x1f"
    )
    return {
        f"{name}": part
        for (name,), part in rows.partition_by("\x1f", as_dict=True, include_key=False).items()
    }


def _has_moved(reference: pl.DataFrame, current: pl.DataFrame, name: str) -> bool:
    return psi(reference[name], current[name]) > max_psi(current.height)
