"""The team's own steps: stages like all others, with a record, an alert and a row."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sandbox
from example.domain import steps
from flight_delays import pipeline
from flight_delays.core.errors import BadInput, CodeError, DomainError, MissingUpstream
from flight_delays.core.refs import Run
from flight_delays.reporting.terminal import print_result
from flight_delays.stages import run_stage
from flight_delays.stages.start import start
from rich.console import Console
from sandbox import Trained

DATASET = {"uri": "u", "rows": 7, "fingerprint": "f", "validated": True}


def shown(run: Run) -> str:
    """Return the closing table as text."""
    text = io.StringIO()
    print_result(Console(file=text, width=200), run.key)
    return text.getvalue()


def replace(monkeypatch: pytest.MonkeyPatch, **functions: Callable[..., Any]) -> None:
    """Let the first step after validate be another function, of the given name."""
    [(name, function)] = functions.items()
    function.__name__ = name
    monkeypatch.setattr(steps, "AFTER_VALIDATE", (function,))
    sandbox.clear_caches()


def test_own_steps_run_after_their_stage_and_are_recorded(trained: Trained) -> None:
    records = sandbox.records(trained.run)
    assert records["count_rows"].result == {
        "result": {
            "rows": sandbox.result(trained.run, "validate")["rows"],
            "partition": f"{sandbox.PARTITION}",
        }
    }
    assert records["look_twice"].result == {"result": {}}
    assert records["tell"].result == {"result": sandbox.result(trained.run, "promote")["verdict"]}
    order = list(records)
    assert order.index("validate") < order.index("count_rows") < order.index("look_twice")
    assert order.index("look_twice") < order.index("featurize")
    assert order.index("promote") < order.index("tell")


def test_own_steps_have_a_row_in_the_closing_table(trained: Trained) -> None:
    lines = [line for line in shown(trained.run).splitlines() if line.startswith("│")]
    rows = {line.split("│")[1].strip(): line for line in lines}
    assert f"partition {sandbox.PARTITION}" in rows["count_rows"]
    assert "done" in rows["look_twice"]


def test_a_step_that_fails_ends_the_run_before_the_next_stage_and_is_told(
    small: Path, inbox: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_few(run: Any, dataset: Any) -> None:
        raise ValueError(f"{dataset.rows} rows are too few for us")

    replace(monkeypatch, too_few=too_few)
    with pytest.raises(CodeError, match=r"ValueError: .* rows are too few for us"):
        pipeline.execute("training", sandbox.PARTITION)

    [event] = inbox()
    assert (event["kind"], event["stage"]) == ("failure", "too_few")
    [folder] = (small / "var" / "artifacts" / "runs").iterdir()
    assert {path.stem for path in folder.glob("*.json")} == {
        *("ingest", "validate", "too_few", "report")
    }


def test_a_step_is_told_from_its_second_run_by_the_window(tracked: Path) -> None:
    run = start("training", sandbox.PARTITION)
    run_stage("count_rows", run, {**DATASET, "window": "wider"})
    assert "count_rows-wider" in sandbox.records(run)


def test_a_step_takes_a_reference_without_its_nulls(tracked: Path) -> None:
    """Kubeflow leaves them out, since its values cannot be null."""
    run = start("training", sandbox.PARTITION)
    told = run_stage("tell", run, {"promoted": False, "verdict": {"decision": "keep"}})
    assert told["result"]["decision"] == "keep"


def test_what_a_step_may_not_return_is_named(
    tracked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace(monkeypatch, all_of_it=lambda run, dataset: pl.DataFrame())
    run = start("training", sandbox.PARTITION)
    with pytest.raises(DomainError, match=r"steps\.py: all_of_it\(\) returned a DataFrame; a step"):
        run_stage("all_of_it", run, DATASET)


def test_a_step_without_its_reference_or_that_is_not_there_is_named(tracked: Path) -> None:
    run = start("training", sandbox.PARTITION)
    with pytest.raises(MissingUpstream, match="stage 'count_rows' got no 'upstream'"):
        run_stage("count_rows", run, None)
    with pytest.raises(BadInput, match=r"no stage 'count'; there are: start, .*count_rows"):
        run_stage("count", run, DATASET)
