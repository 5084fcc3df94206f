"""Drift, against scipy and against the population stability index computed by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import date

import numpy as np
import polars as pl
import pytest
from flight_delays.ml.drift import (
    FeatureDrift,
    drift_table,
    psi,
)
from numpy.typing import NDArray
from scipy import stats

DAYS = [date(2013, 1, day) for day in range(1, 11)]


def index_of(reference: Sequence[int], current: Sequence[int]) -> float:
    """The index of counts a bin, half a row added to each, one step after the other."""
    total = 0.0
    for left, right in zip(reference, current, strict=True):
        p = (left + 0.5) / (sum(reference) + 0.5 * len(reference))
        q = (right + 0.5) / (sum(current) + 0.5 * len(current))
        total += (p - q) * math.log(p / q)
    return total


def compare(reference: pl.Series, current: pl.Series, max_psi: float = 0.25) -> FeatureDrift:
    before, after = (pl.DataFrame({"x": series}) for series in (reference, current))
    (row,) = drift_table(before, after, ["x"], max_psi).features
    return row


def test_psi_of_categories_equals_the_sum_by_hand() -> None:
    reference = pl.Series(["a"] * 60 + ["b"] * 40)
    current = pl.Series(["a"] * 30 + ["c"] * 50 + [None] * 20)

    assert psi(reference, current) == pytest.approx(index_of([60, 40, 0, 0], [30, 0, 50, 20]))


def test_psi_of_numbers_equals_the_sum_by_hand() -> None:
    reference = pl.Series(range(1, 11))
    current = pl.Series([-3, 1, 5, 5, 5, 11, 12, None])

    # Below 1, exactly 1, up to 2, …, up to 10, above 10, null.
    before = [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0]
    after = [1, 1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 2, 1]
    assert psi(reference, current) == pytest.approx(index_of(before, after))


def test_psi_of_many_rows_equals_that_of_numpys_bins() -> None:
    random = np.random.default_rng(0)
    before, after = random.normal(0, 1, 20_000), random.normal(0.5, 1.2, 5_000)
    inner = np.quantile(before, np.arange(1, 10) / 10, method="inverted_cdf")
    edges = np.array([before.min(), *inner, before.max()])

    def counts(values: NDArray[np.float64]) -> list[int]:
        below = int((values < edges[0]).sum())
        # Position 0 is everything up to the smallest value.
        up_to_smallest, *others = np.bincount(np.searchsorted(edges, values), minlength=12)
        return [below, int(up_to_smallest) - below, *(int(count) for count in others), 0]

    expected = index_of(counts(before), counts(after))
    assert psi(pl.Series(before), pl.Series(after)) == pytest.approx(expected)


def test_numeric_columns_are_tested_like_scipy_does() -> None:
    random = np.random.default_rng(0)
    before, after = random.normal(0, 1, 3_000), random.normal(0.1, 1, 1_000)

    row = compare(pl.Series(before), pl.Series(after))

    expected = stats.ks_2samp(before, after, method="asymp")
    assert (row.kind, row.test) == ("numeric", "ks")
    assert row.statistic == pytest.approx(expected.statistic)
    assert row.p_value == pytest.approx(expected.pvalue)


def test_categories_are_tested_like_scipy_does() -> None:
    row = compare(
        pl.Series(["a"] * 60 + ["b"] * 40), pl.Series(["a"] * 30 + ["b"] * 10 + [None] * 5)
    )

    expected = stats.chi2_contingency([[60, 40, 0], [30, 10, 5]], correction=False)
    assert (row.kind, row.test) == ("categorical", "chi2")
    assert row.statistic == pytest.approx(expected.statistic)
    assert row.p_value == pytest.approx(expected.pvalue)
    assert row.reference_null_share == 0
    assert row.current_null_share == pytest.approx(1 / 9)


def test_significant_is_not_drifted() -> None:
    before = pl.Series(["a"] * 50_000 + ["b"] * 50_000)
    after = pl.Series(["a"] * 51_000 + ["b"] * 49_000)

    row = compare(before, after)

    assert row.p_value is not None
    assert row.p_value < 0.001
    assert row.psi < 0.001
    assert not row.drifted


def test_the_limit_decides() -> None:
    before, after = pl.Series(["a", "b"] * 50), pl.Series(["a"] * 80 + ["b"] * 20)
    value = psi(before, after)

    assert compare(before, after, max_psi=value * 0.99).drifted
    assert not compare(before, after, max_psi=value).drifted


def test_the_table_starts_with_the_worst() -> None:
    before = pl.DataFrame(
        {"same": ["a", "b"] * 50, "moved": [1.0, 2.0] * 50, "left_out": [0] * 100}
    )
    after = before.with_columns(moved=pl.col("moved") + 10)

    table = drift_table(before, after, ["same", "moved"], 0.25).features

    assert [(row.feature, row.drifted) for row in table] == [("moved", True), ("same", False)]


@pytest.mark.parametrize(
    "series",
    [
        pl.Series([1, 2, 2, 3, None]),
        pl.Series([1.5]),
        pl.Series([7.0] * 50),
        pl.Series([0.0] * 90 + [1.0] * 10),
        pl.Series([1.0, math.nan, math.inf, -math.inf, None]),
        pl.Series([math.inf, math.inf]),
        pl.Series([None, None], dtype=pl.Float64),
        pl.Series([None, None], dtype=pl.String),
        pl.Series([None, None]),
        pl.Series(DAYS),
        pl.Series([True, False, None, True]),
        pl.Series(["", "ä", "<b>", None]),
        pl.Series(["a", "b"], dtype=pl.Categorical),
        pl.Series(["a", "b"], dtype=pl.Enum(["a", "b", "c"])),
    ],
    ids=lambda series: f"{series.dtype}-{series.len()}-{series.null_count()}",
)
def test_equal_columns_of_any_kind_have_no_drift(series: pl.Series) -> None:
    row = compare(series, series)

    assert row.psi == pytest.approx(0)
    assert not row.drifted
    assert row.p_value is None or row.p_value == pytest.approx(1)


@pytest.mark.parametrize(
    ("reference", "current"),
    [
        (pl.Series([1.0] * 99), pl.Series([2.0] * 99)),
        (pl.Series([1.0] * 99), pl.Series([math.nan] * 99)),
        (pl.Series([1.0] * 99), pl.Series([None] * 99)),
        (pl.Series([1.0] * 99), pl.Series([math.inf] * 99)),
        (pl.Series([None] * 99, dtype=pl.Float32), pl.Series([1.0] * 99)),
        (pl.Series(["a"] * 99), pl.Series(["b"] * 99)),
        (pl.Series(["a"] * 99), pl.Series([None] * 99)),
        (pl.Series([None] * 99), pl.Series(["a"] * 99)),
        (pl.Series(["a"] * 99), pl.Series([1] * 99)),
        (pl.Series([True] * 99), pl.Series([False] * 99)),
        (pl.Series([date(2013, 1, 1)] * 99), pl.Series([date(2013, 1, 2)] * 99)),
        (pl.Series(["a"] * 99, dtype=pl.Categorical), pl.Series(["b"] * 99)),
    ],
)
def test_columns_with_nothing_in_common_have_drifted(
    reference: pl.Series, current: pl.Series
) -> None:
    row = compare(reference, current)

    assert row.drifted
    assert math.isfinite(row.psi)
    json.dumps(row.model_dump(mode="json"), allow_nan=False)


def test_a_single_row_stays_below_what_chance_makes_of_it() -> None:
    bins = 13
    by_chance = (bins - 1) * (1 / 1_000 + 1 / 1)

    assert psi(pl.Series(range(1_000)), pl.Series([500])) < by_chance


@pytest.mark.parametrize("side", ["reference", "current"])
def test_no_rows_are_refused(side: str) -> None:
    rows, none = pl.DataFrame({"x": [1]}), pl.DataFrame({"x": []}, schema={"x": pl.Int64})
    reference, current = (none, rows) if side == "reference" else (rows, none)

    with pytest.raises(ValueError, match=f"'x' has no {side} rows"):
        drift_table(reference, current, ["x"], 0.25)
