"""What columns of text say: times as people write them, numbers with points between thousands."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

# A few texts of a column may not be times.
MOSTLY = 0.95
# 03/04/2026 is in March or in April: each form with its twin.
SLASHED = {"%m/%d/%Y": "%d/%m/%Y", "%d/%m/%Y": "%m/%d/%Y"}
TIMES = (
    *("%Y-%m-%dT%H:%M:%S%.fZ", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M"),
    *("%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M"),
    *(f"{day} {clock}" for day in SLASHED for clock in ("%H:%M:%S", "%H:%M")),
)
DAYS = ("%Y-%m-%d", "%d.%m.%Y", "%Y/%m/%d", *SLASHED)
# As in 1.234,56; such a file has decimal commas.
NUMBER = r"[+-]?\d{1,3}(?:\.\d{3})*(?:,\d+)?|[+-]?\d+(?:,\d+)?"


def form_of_times(texts: pl.Series) -> tuple[str, pl.Series]:
    """Return the form that most texts have, read as times, and those that have not."""
    forms = [(form, _not_written(texts, form)) for form in (*TIMES, *DAYS)]
    return min(forms, key=lambda one: len(one[1]))


def is_ambiguous(texts: pl.Series, form: str) -> bool:
    """Tell whether the day and the month could change places in all of these texts."""
    for day, twin in SLASHED.items():
        if form.startswith(day):
            other = form.replace(day, twin)
            return len(_not_written(texts, other)) == len(_not_written(texts, form))
    return False


def is_slashed(form: str) -> bool:
    """Return whether the pipeline needs that form in its settings, as it could be another one."""
    return form.startswith(tuple(SLASHED))


def as_time(name: str, form: str) -> pl.Expr:
    """Return a column of texts in that form as times or days; null where one is not."""
    time = pl.col(name).str.to_datetime(
        form, time_zone="UTC" if form.endswith("Z") else None, strict=False
    )
    return time.cast(pl.Date) if form in DAYS else time


def as_number(name: str, texts: pl.Series) -> pl.Expr | None:
    """Return a column of texts as numbers, if they are some with points between thousands."""
    if not len(texts) or not texts.str.contains(f"^({NUMBER})$").all():
        return None
    plain = pl.col(name).str.replace_all(".", "", literal=True)
    return plain.str.replace(",", ".", literal=True).cast(pl.Float64, strict=False)


def shown(values: Sequence[object] | pl.Series) -> str:
    """Return the first of some values as part of a sentence."""
    first = ", ".join(f"'{value}'" for value in values[:5])
    return f"{first} …" if len(values) > 5 else first


def _not_written(texts: pl.Series, form: str) -> pl.Series:
    """Return the texts that are not times in that form."""
    try:
        return texts.filter(texts.str.to_datetime(form, strict=False).is_null())
    except pl.exceptions.PolarsError:
        return texts
