"""How far a feature's distribution has moved from the one a model learned.

The population stability index (PSI) decides: it measures the size of a change and hardly depends
on the number of rows. The tests beside it only inform, since with enough rows any difference,
however small, becomes significant. Sources: Siddiqi, Credit Risk Scorecards (2006), for the PSI
and its rule of thumb; Lin, Lucas and Shmueli, "Too Big to Fail: Large Samples and the p-Value
Problem" (2013).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

BINS = 10
# Rows that are enough for stable bin edges, and for the Kolmogorov-Smirnov test.
SAMPLE_ROWS = 20_000
# The exact test is slow for more pairs of rows, and the asymptotic one wrong for a few.
EXACT_PAIRS = 10_000

Counts = NDArray[np.float64]


class FeatureDrift(BaseModel):
    """The change of one feature between two sets of rows.

    Attributes:
        psi: Population stability index; below 0.1 is stable, above 0.25 a major shift.
        statistic: Of the test: the largest distance between the two distribution functions (ks),
            or chi-square. None if one side holds only nulls.
        p_value: Of the test, None like `statistic`.
        reference_null_share: Nulls among the reference's rows, 0 to 1; NaN counts as null.
        current_null_share: The same for the current rows.
        drifted: Whether `psi` is above the limit; p-values play no part in it.
    """

    model_config = ConfigDict(frozen=True)

    feature: str
    kind: Literal["numeric", "categorical"]
    psi: float
    test: Literal["ks", "chi2"]
    statistic: float | None
    p_value: float | None
    reference_null_share: float
    current_null_share: float
    drifted: bool


class DriftTable(BaseModel):
    """The drift of several features, the largest population stability index first."""

    model_config = ConfigDict(frozen=True)

    schema_version: int = 1
    features: tuple[FeatureDrift, ...]


def drift_table(
    reference: pl.DataFrame, current: pl.DataFrame, columns: list[str], max_psi: float
) -> DriftTable:
    """Compare columns of two frames; returns one entry per column, the largest PSI first.

    Numeric columns get the two-sample Kolmogorov-Smirnov test, on an even sample of at most
    20,000 rows per side; categorical ones the chi-square test of homogeneity, on all rows. Both are
    those of scipy.stats; p-values are asymptotic except for the smallest samples.

    Args:
        reference: Rows the model learned from.
        current: Rows to compare with them.
        columns: What to compare; both frames have these columns.
        max_psi: Limit beyond which a feature counts as drifted.

    Raises:
        ValueError: One of the frames has no rows.
    """
    rows = [_compare(name, reference[name], current[name], max_psi) for name in columns]
    return DriftTable(features=tuple(sorted(rows, key=lambda row: -row.psi)))


def psi(reference: pl.Series, current: pl.Series) -> float:
    """Return the population stability index: sum of (p - q) ln(p / q) over bins, p and q shares.

    Numbers and dates fall into ten quantile bins of the reference (fewer where it repeats values);
    values below and above its range, its smallest value and nulls have separate bins. For
    anything else, each category is a bin. Half a row is added to every bin of both sides, so that
    an empty bin leaves the index finite.

    By chance alone, the index of equal distributions is about (bins - 1)(1/m + 1/n) for m and n
    rows. Source: Yurdakul, Statistical Properties of Population Stability Index (2018).

    Raises:
        ValueError: One of the series is empty.
    """
    numeric, reference, current = _comparable(reference, current)
    return _index(*(_bin_counts if numeric else _category_counts)(reference, current))


def _compare(name: str, reference: pl.Series, current: pl.Series, max_psi: float) -> FeatureDrift:
    numeric, reference, current = _comparable(reference, current)
    counts = (_bin_counts if numeric else _category_counts)(reference, current)
    index = _index(*counts)
    statistic, p_value = _test(numeric, reference.drop_nulls(), current.drop_nulls(), counts)
    return FeatureDrift(
        feature=name,
        kind="numeric" if numeric else "categorical",
        psi=index,
        test="ks" if numeric else "chi2",
        statistic=statistic,
        p_value=p_value,
        reference_null_share=reference.null_count() / reference.len(),
        current_null_share=current.null_count() / current.len(),
        drifted=index > max_psi,
    )


def _comparable(reference: pl.Series, current: pl.Series) -> tuple[bool, pl.Series, pl.Series]:
    """Return whether both sides are numbers or dates, and both, as floats where they are."""
    for side, series in (("reference", reference), ("current", current)):
        if series.is_empty():
            raise ValueError(f"no drift to measure: '{series.name}' has no {side} rows")
    sides = (reference, current)
    # A column of only nulls may have lost its type: the other side's decides.
    types = [series.dtype for series in sides if series.dtype != pl.Null]
    if not all(dtype.is_numeric() or dtype.is_temporal() for dtype in types):
        return False, reference, current
    left, right = (series.to_physical().cast(pl.Float64).fill_nan(None) for series in sides)
    return True, left, right


def _sample(series: pl.Series) -> NDArray[np.float64]:
    step = math.ceil(series.len() / SAMPLE_ROWS)
    return series.gather_every(step).to_numpy()


def _index(reference: Counts, current: Counts) -> float:
    p, q = ((counts + 0.5) / (counts.sum() + 0.5 * counts.size) for counts in (reference, current))
    return float(np.sum((p - q) * np.log(p / q)))


def _bin_counts(reference: pl.Series, current: pl.Series) -> tuple[Counts, Counts]:
    finite = reference.filter(reference.is_finite())
    edges = np.zeros(1)
    if not finite.is_empty():
        inner = np.quantile(_sample(finite), np.arange(1, BINS) / BINS, method="inverted_cdf")
        edges = np.unique([finite.min(), *inner, finite.max()])
    return _counts_between(edges, reference), _counts_between(edges, current)


def _counts_between(edges: NDArray[np.float64], series: pl.Series) -> Counts:
    """Count values below the first edge, on it, between edges, above the last, and nulls."""
    # A comparison for each edge is a fraction of the cost of sorting every value into its bin.
    cumulative = [(series < edges[0]).sum(), *((series <= edge).sum() for edge in edges)]
    known = series.len() - series.null_count()
    between = np.diff([0, *cumulative, known])
    return np.append(between, series.null_count()).astype(np.float64)


def _category_counts(reference: pl.Series, current: pl.Series) -> tuple[Counts, Counts]:
    sides = [
        series.alias("value").value_counts(name=name).with_columns(pl.col("value").cast(pl.String))
        for name, series in (("reference", reference), ("current", current))
    ]
    both = sides[0].join(sides[1], on="value", how="full", coalesce=True, nulls_equal=True)
    counts = both.sort("value").select("reference", "current").fill_null(0)
    p, q = counts.to_numpy().astype(np.float64).T
    return p, q


def _test(
    numeric: bool, reference: pl.Series, current: pl.Series, counts: tuple[Counts, Counts]
) -> tuple[float | None, float | None]:
    """Return the statistic and the p-value of the test beside the index, from known values."""
    from scipy.stats import chi2_contingency, ks_2samp

    if reference.is_empty() or current.is_empty():
        return None, None
    if numeric:
        left, right = _sample(reference), _sample(current)
        few = left.size * right.size <= EXACT_PAIRS
        found = ks_2samp(left, right, method="exact" if few else "asymp")
    else:
        found = chi2_contingency(np.vstack(counts), correction=False)
    return float(found.statistic), float(found.pvalue)
