"""How rows are split into those that are learned from and those that are held out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..core.errors import BadInput

T = TypeVar("T")

# A target with at most this many values counts as classes, each of which keeps its share.
FEW_VALUES = 20


def by_time(items: Sequence[T], holdout: int, gap: int = 0) -> tuple[list[T], list[T]]:
    """Return the items before the newest `holdout` and the `gap` before those, and the newest.

    Args:
        items: Oldest first.
        holdout: How many are held out.
        gap: How many between the two are not used.
    """
    cut = max(0, len(items) - holdout)
    return list(items[: max(0, cut - gap)]), list(items[cut:])


def by_row(target: pl.Series, groups: pl.DataFrame, share: float, seed: int) -> NDArray[np.bool_]:
    """Return which rows are held out, shape (rows,).

    Source: scikit-learn's `train_test_split` and `GroupShuffleSplit`.

    Args:
        target: What is predicted; each class keeps its share where that is possible.
        groups: The columns that say which rows stay together; none for a split at random.
        share: Of the rows, or of the groups.
        seed: Of the shuffling.

    Raises:
        BadInput: There are too few rows or groups.
    """
    from sklearn.model_selection import GroupShuffleSplit, train_test_split

    rows = np.arange(len(target))
    try:
        if groups.width:
            ids = groups.select(pl.struct(pl.all()).rank("dense")).to_series()
            splitter = GroupShuffleSplit(n_splits=1, test_size=share, random_state=seed)
            _, held = next(splitter.split(rows, groups=ids.to_numpy()))
        else:
            classes = target.to_numpy() if _is_stratifiable(target, share) else None
            _, held = train_test_split(rows, test_size=share, random_state=seed, stratify=classes)
    except ValueError as error:
        what = "groups" if groups.width else "rows with a target"
        raise BadInput(f"too few {what} to hold out {share:.0%}: {error}") from None
    mask = np.zeros(len(target), dtype=bool)
    mask[held] = True
    return mask


def _is_stratifiable(target: pl.Series, share: float) -> bool:
    """Return whether there are few classes, each with rows for both sides."""
    counts = target.value_counts()["count"].to_list()
    smaller = min(share, 1 - share) * len(target)
    return len(counts) <= min(FEW_VALUES, smaller) and min(counts, default=0) > 1


def without_groups(frame: pl.DataFrame, groups: pl.DataFrame) -> pl.DataFrame:
    """Return the rows whose values of the columns of `groups` are in none of its rows.

    Rows without a value belong to no group.
    """
    if not groups.width:
        return frame
    names = groups.columns
    return frame.join(groups, on=names, how="anti", maintain_order="left")


def refuse_one_value(target: pl.Series, what: str, partitions: Sequence[str]) -> None:
    """Refuse rows that all have one target: nothing can be learned from them, or measured on them.

    Args:
        target: Classes or numbers, none of them null.
        what: What the rows are for, like `to learn from`.
        partitions: Where they come from, oldest first.

    Raises:
        BadInput: Names the rows, their partitions and the only value.
    """
    if target.n_unique() > 1:
        return
    span = " to ".join(dict.fromkeys((partitions[0], partitions[-1]))) if partitions else "none"
    held = f"one class or value only, {target[0]}" if len(target) else "no target"
    raise BadInput(
        f"the {len(target)} rows {what} ({span}) have {held}, and two are needed: widen window in "
        "[training], train for another partition, or look at the labels of these partitions and at "
        "target() in domain/problem.py"
    )


def shared_rows(left: pl.DataFrame, right: pl.DataFrame) -> int:
    """Return how many rows of `right` are also in `left`."""
    return right.join(left.unique(), on=left.columns, how="semi", nulls_equal=True).height


def equal_columns(frame: pl.DataFrame, columns: Sequence[str], target: str) -> list[str]:
    """Return the columns that equal another in every row, as numbers or as text."""
    return [name for name in columns if _equal(frame[name], frame[target])]


def _equal(left: pl.Series, right: pl.Series) -> bool:
    numbers = all(one.dtype.is_numeric() or one.dtype == pl.Boolean for one in (left, right))
    common = pl.Float64 if numbers else pl.String
    return bool(left.cast(common).eq_missing(right.cast(common)).all())
