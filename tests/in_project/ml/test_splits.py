"""Splits: by time, at random and by group, and the leaks that they refuse."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from flight_delays.core.errors import BadInput
from flight_delays.ml import splits

NO_GROUPS = pl.DataFrame()


def test_the_newest_are_held_out_and_the_gap_is_seen_by_nobody() -> None:
    assert splits.by_time("abcdefg", 2) == (list("abcde"), list("fg"))
    assert splits.by_time("abcdefg", 2, gap=3) == (list("ab"), list("fg"))
    assert splits.by_time("ab", 2, gap=3) == ([], list("ab"))


def test_each_class_keeps_its_share() -> None:
    target = pl.Series(["rare"] * 10 + ["common"] * 90)
    held = splits.by_row(target, NO_GROUPS, 0.2, seed=7)
    assert held.sum() == 20
    assert (target.filter(pl.Series(held)) == "rare").sum() == 2


def test_the_same_seed_holds_out_the_same_rows() -> None:
    target = pl.Series(np.linspace(0, 1, 1000))
    first, again, other = (splits.by_row(target, NO_GROUPS, 0.3, seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert not (first == other).all()
    assert first.sum() == 300


def test_a_class_of_one_row_is_no_obstacle() -> None:
    target = pl.Series(["once"] + ["often"] * 99)
    assert splits.by_row(target, NO_GROUPS, 0.2, seed=7).sum() == 20


def test_the_rows_of_a_group_stay_together() -> None:
    groups = pl.DataFrame(
        {"shop": [n % 5 for n in range(100)], "town": [n % 2 for n in range(100)]}
    )
    held = splits.by_row(pl.Series(range(100)), groups, 0.3, seed=7)
    left, right = groups.filter(~held), groups.filter(held)
    assert right.unique().height == 3
    assert splits.shared_rows(left, right) == 0


def test_too_few_rows_or_groups_are_named() -> None:
    with pytest.raises(BadInput, match="too few rows with a target to hold out 20%"):
        splits.by_row(pl.Series([1]), NO_GROUPS, 0.2, seed=7)
    with pytest.raises(BadInput, match="too few groups"):
        splits.by_row(pl.Series([1, 2]), pl.DataFrame({"shop": [1, 1]}), 0.2, seed=7)


def test_rows_without_a_group_are_of_none() -> None:
    rows = pl.DataFrame({"shop": [1, None, 2, 1], "x": [1, 2, 3, 4]})
    kept = splits.without_groups(rows, pl.DataFrame({"shop": [1, None]}))
    assert kept["x"].to_list() == [2, 3]
    assert splits.without_groups(rows, NO_GROUPS).equals(rows)


def test_rows_on_both_sides_are_counted() -> None:
    left = pl.DataFrame({"a": [1, 2, None], "b": ["x", "y", "z"]})
    right = pl.DataFrame({"a": [1, 2, 2, None], "b": ["x", "x", "y", "z"]})
    assert splits.shared_rows(left, right) == 3


def test_a_column_that_equals_the_target_is_found_in_any_type() -> None:
    frame = pl.DataFrame(
        {
            "target": [1, 0, None],
            "same": [1.0, 0.0, None],
            "flag": [True, False, None],
            "text": ["1", "0", None],
            "almost": [1, 0, 0],
        }
    )
    names = ["same", "flag", "text", "almost"]
    assert splits.equal_columns(frame, names, "target") == ["same", "flag", "text"]
