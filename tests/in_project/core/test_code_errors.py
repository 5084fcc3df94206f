"""A mistake in code is told from a fault of the world, is named with its place, and is final."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import requests
import sandbox
from example.domain import steps
from flight_delays.core.code_errors import is_mistake
from flight_delays.core.errors import CodeError, SettingsError
from flight_delays.core.records import StageError
from flight_delays.stages import run_stage
from flight_delays.stages.start import start

DATASET = {"uri": "u", "rows": 7, "fingerprint": "f", "validated": True}


def raised(work: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        work()
    return caught.value


def refused_while_it_was_handled() -> None:
    try:
        raise ConnectionResetError
    except ConnectionResetError:
        raise ValueError("no JSON in the answer")  # noqa: B904


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: dict[str, int]()["a"],
        lambda: [1][int("3")],
        lambda: None.rows,  # type: ignore[attr-defined]
        lambda: 1 / 0,
        lambda: int("seven"),
        lambda: nothing,  # type: ignore[name-defined] # noqa: F821
        lambda: len(3),  # type: ignore[arg-type]
        lambda: pl.DataFrame({"a": [1]}).select("b"),
        lambda: pl.DataFrame({"a": [1]}).select(pl.col("a").str.len_bytes()),
    ],
)
def test_a_mistake_in_code_is_one(mistake: Callable[[], object]) -> None:
    assert is_mistake(raised(mistake))


@pytest.mark.parametrize(
    "fault",
    [
        lambda: Path("/nowhere").read_text(),
        lambda: requests.get("http://127.0.0.1:9", timeout=1),
        lambda: sqlite3.connect("file:/nowhere?mode=ro", uri=True).execute("SELECT 1"),
        refused_while_it_was_handled,
    ],
)
def test_a_fault_of_the_world_is_none(fault: Callable[[], object]) -> None:
    assert not is_mistake(raised(fault))


def test_what_we_raise_on_purpose_says_all_itself() -> None:
    assert not is_mistake(SettingsError("a is 3, not 4"))
    kept = StageError.of(SettingsError("a is 3, not 4"))
    assert (kept.location, kept.traceback) == ("", "")


def test_a_mistake_of_the_team_is_named_with_file_line_and_code(
    tracked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(run: Any, dataset: Any) -> None:
        columns = ["a", "b"]
        pl.DataFrame({name: [1] for name in columns}).select("c")

    # Like a function of that file.
    monkeypatch.setitem(lost.__globals__, "__name__", "example.domain.steps")
    monkeypatch.setattr(steps, "AFTER_VALIDATE", (lost,))
    run = start("training", sandbox.PARTITION)
    with pytest.raises(CodeError, match=r"^ColumnNotFoundError: .*\(.*\.py:\d+ in lost\)$"):
        run_stage("lost", run, DATASET)
    error = sandbox.records(run)["lost"].error
    assert error is not None
    assert error.kind == "ColumnNotFoundError"
    assert error.location.endswith(" in lost")
    assert error.code.splitlines()[-1].endswith('.select("c")')
    assert error.traceback.startswith("Traceback (most recent call last)")
