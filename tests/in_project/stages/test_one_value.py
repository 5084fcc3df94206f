"""Rows with one class or one value only: a sentence that names them, and no champion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sandbox
from deliveries import DAY, DAYS, put
from flight_delays import pipeline
from flight_delays.core.errors import BadInput, DataRejected
from flight_delays.ml import splits

# SMALL learns from three days, of which the newest validates, and holds two out.
LEARNED, HELD = DAYS[:3], DAYS[3:]
CASES: dict[str, tuple[list[str], str]] = {
    "everywhere": (DAYS, rf"rows of the window \({DAYS[0]} to {DAY}\) have one class or value"),
    "to learn from": (LEARNED, rf"rows to learn from \({LEARNED[0]} to {LEARNED[-1]}\) have one"),
    "to fit on": (LEARNED[:2], rf"rows to tune on \({LEARNED[0]} to {LEARNED[1]}\) have one"),
    "to validate on": (LEARNED[2:], rf"rows to tune on \({LEARNED[2]}\) have one class"),
    "held out": (HELD, rf"rows that are held out \({HELD[0]} to {HELD[1]}\) have one class"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_class_is_named_with_its_partitions(
    small: Path, tmp_path: Path, inbox: Callable[[], list[dict[str, Any]]], case: str
) -> None:
    days, said = CASES[case]
    variables = sandbox.source_of(tmp_path / "source", DAYS)
    for day in days:
        rows = put("arr_delay", -5)(sandbox.sample(day)).cast(sandbox.sample(day).schema)
        rows.write_parquet(tmp_path / f"source/{day}.parquet")
    with sandbox.enter(small, sandbox.SMALL | variables):
        with pytest.raises(BadInput, match=rf"the \d+ {said}") as caught:
            pipeline.execute("training", DAY)
        assert sandbox.registry().versions == []
    assert "widen window in [training]" in str(caught.value)
    assert len(inbox()) == 1


def test_labels_that_are_all_null_are_named(small: Path, tmp_path: Path) -> None:
    variables = sandbox.source_of(tmp_path / "source", DAYS)
    for day in DAYS:
        put("arr_delay", None)(sandbox.sample(day)).write_parquet(
            tmp_path / f"source/{day}.parquet"
        )
    with (
        sandbox.enter(small, sandbox.SMALL | variables),
        pytest.raises(DataRejected, match="null_target"),
    ):
        pipeline.execute("training", DAY)
    random = {"TRAINING__MIN_LABELLED_SHARE": "0.5", "TRAINING__SPLIT": "random"}
    with (
        sandbox.enter(small, sandbox.SMALL | variables | random),
        pytest.raises(BadInput, match=r"the 0 rows of the window .* have no target"),
    ):
        pipeline.execute("training", DAY)


@pytest.mark.parametrize(
    ("target", "held"),
    [
        ([5.0, 5.0], "one class or value only, 5.0"),
        (["late"], "one class or value only, late"),
        ([], "no target"),
    ],
)
def test_a_number_that_never_changes_is_like_one_class(target: list[Any], held: str) -> None:
    with pytest.raises(BadInput, match=f"rows to learn from .2026-01. have {held}, and two are"):
        splits.refuse_one_value(pl.Series(target), "to learn from", ["2026-01"])
    splits.refuse_one_value(pl.Series([1, 2]), "to learn from", ["2026-01"])
