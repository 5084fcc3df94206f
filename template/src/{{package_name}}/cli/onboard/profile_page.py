"""A page that shows a table, and what was made of it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import polars as pl

from .look import Column, Table
from .plan import Plan

TEMPLATE = Path(__file__).with_name("templates") / "profile.html.j2"
BARS = 24


def render(table: Table, plan: Plan) -> str:
    """Return the page as HTML that needs nothing else to be read."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    columns = [_shown(column, table, plan) for column in table.columns.values()]
    return page.render(table=table, plan=plan, columns=columns)


def _shown(column: Column, table: Table, plan: Plan) -> dict[str, Any]:
    values = table.sample[column.name].drop_nulls()
    counts = values.value_counts(sort=True) if len(values) else None
    frequent = [] if counts is None else list(itertools.islice(counts.iter_rows(), 3))
    return {
        "name": column.name,
        "type": f"{column.dtype}",
        "missing": column.nulls / table.rows,
        "distinct": column.distinct,
        "low": _short(column.low),
        "high": _short(column.high),
        "frequent": [(_short(value), count / len(values)) for value, count in frequent],
        "bars": _bars(values),
        "role": _role(column.name, plan),
        "suspicious": plan.suspicious.get(column.name, ""),
    }


def _role(name: str, plan: Plan) -> str:
    roles = {
        "target": (plan.target,),
        "time": (plan.time,),
        "key": plan.key,
        "group": plan.group,
        "feature": (*plan.numeric, *plan.categorical, *(part.column for part in plan.parts)),
    }
    return ", ".join(role for role, names in roles.items() if name in names) or "left out"


def _bars(values: pl.Series) -> list[float]:
    """Return the heights of a histogram, or of the most frequent values, 0 to 1."""
    if not len(values):
        return []
    if values.dtype.is_numeric() or values.dtype.is_temporal():
        numbers = values.to_physical().cast(pl.Float64)
        numbers = numbers.filter(numbers.is_finite())
        if numbers.n_unique() > 1:
            counts = numbers.hist(bin_count=BARS)["count"].to_list()
            return [count / max(counts) for count in counts]
    most = values.value_counts(sort=True)["count"].head(BARS).to_list()
    return [count / most[0] for count in most]


def _short(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else "" if value is None else f"{value}"
    return text if len(text) <= 40 else f"{text[:39]}…"
