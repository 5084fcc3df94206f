"""Whole runs on other cadences, sources and splits than the sample's, and what a split refuses."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import example
import polars as pl
import pytest
import sandbox
from flight_delays import interface, pipeline
from flight_delays.core import storage
from flight_delays.core.cadence import Cadence
from flight_delays.core.errors import BadInput
from flight_delays.core.refs import CandidateRef, EvaluationRef, FeaturesRef, Run, ScoresRef
from flight_delays.interface import load_problem, load_schema
from flight_delays.stages.featurize import featurize
from flight_delays.stages.ingest import ingest
from flight_delays.stages.start import start
from flight_delays.stages.validate import foreign_partitions, validate

Inbox = Callable[[], list[dict[str, Any]]]
SNAPSHOT = {"DATA__CADENCE": "none", "DATA__FILE": "table.parquet"}


@pytest.fixture
def table(tmp_path: Path) -> pl.DataFrame:
    """Return all the example's rows, without an order; `tmp_path` has them as table.parquet."""
    rows = pl.concat([pl.read_parquet(path) for path in sorted(example.SAMPLE.iterdir())])
    rows = rows.sample(fraction=1, shuffle=True, seed=1)
    rows.write_parquet(tmp_path / "table.parquet")
    return rows


def features_of(run: Run) -> FeaturesRef:
    """Return what the featurize stage of a run returned."""
    return FeaturesRef.model_validate(sandbox.result(run, "featurize"))


def rows_of(uri: str | None) -> pl.DataFrame:
    """Return the rows that a manifest lists."""
    return storage.read_partitions(storage.read_manifest(uri or ""))


def give(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Change what domain/schema.py says, for the stages that split."""
    changed = load_schema().model_copy(update=changes)
    for stage in ("featurize", "train"):
        monkeypatch.setattr(f"flight_delays.stages.{stage}.load_schema", lambda: changed)


def test_a_weekly_table_gets_a_champion_and_scores(
    small: Path, tmp_path: Path, table: pl.DataFrame, inbox: Inbox
) -> None:
    variables = {
        "DATA__KIND": "table",
        "DATA__SOURCE": str(tmp_path / "table.parquet"),
        "DATA__CADENCE": "week",
        "TRAINING__HOLDOUT": "1",
        "TRAINING__GAP": "1",
    }
    with sandbox.enter(small, sandbox.SMALL | variables):
        run = pipeline.execute("training", "2013-W05")
        scored = pipeline.execute("inference")
        features = features_of(run)
        learned, held = rows_of(features.uri), rows_of(features.holdout_uri)
        candidate = CandidateRef.model_validate(sandbox.result(run, "select"))
        scores = ScoresRef.model_validate(sandbox.result(scored, "score"))
    assert (features.holdout_from, candidate.trained_until) == ("2013-W05", "2013-W03")
    week = Cadence("week")
    assert {week.of(day) for day in learned["date"]} == {"2013-W01", "2013-W02", "2013-W03"}
    assert {week.of(day) for day in held["date"]} == {"2013-W05"}
    assert learned["date"].is_sorted()
    assert scored.partition == "2013-W06"
    assert scores.rows == table.filter(pl.col("date") >= date(2013, 2, 4)).height
    assert next(event["kind"] for event in inbox()) == "champion_changed"


def test_a_snapshot_gets_a_champion_and_scores(
    small: Path, tmp_path: Path, table: pl.DataFrame
) -> None:
    variables = sandbox.SMALL | SNAPSHOT | {"DATA__SOURCE": str(tmp_path)}
    with sandbox.enter(small, variables):
        run = pipeline.execute("training")
        again = pipeline.execute("training")
        scored = pipeline.execute("inference")
        features = features_of(run)
        learned, held = (rows_of(uri) for uri in (features.uri, features.holdout_uri))
        scores = ScoresRef.model_validate(sandbox.result(scored, "score"))
        registry = sandbox.registry()
        verdict = EvaluationRef.model_validate(sandbox.result(again, "evaluate")).verdict
    assert (run.partition, scored.partition) == ("all", "all")
    assert registry.champion == 1
    assert [one.kind for one in verdict.notes if not one.classes] == ["already_champion"]
    assert features.holdout_rows == pytest.approx(0.2 * features.rows, abs=1)
    assert scores.rows == table.height
    if held["target"].n_unique() == 2:
        assert held["target"].mean() == pytest.approx(learned["target"].mean(), abs=0.001)


def test_a_group_is_on_one_side_of_every_split(
    small: Path, tmp_path: Path, table: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(monkeypatch, group=("flight", "carrier"))
    with sandbox.enter(small, sandbox.SMALL | {"TRAINING__SPLIT": "group"}):
        run = pipeline.execute("training", sandbox.PARTITION)
        features = features_of(run)
        learned, held = (rows_of(uri) for uri in (features.uri, features.holdout_uri))
    assert learned.height + held.height == features.rows
    group = ["flight", "carrier"]
    assert learned.join(held, on=group, how="semi").is_empty()


def test_a_split_by_time_and_group_learns_nothing_of_a_group_that_is_held_out(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = ["flight", "carrier"]
    give(monkeypatch, group=tuple(group))
    found = {}
    for split in ("time", "time_and_group"):
        with sandbox.enter(small, sandbox.SMALL | {"TRAINING__SPLIT": split}):
            run = pipeline.execute("training", sandbox.PARTITION)
            features = features_of(run)
            found[split] = rows_of(features.uri), rows_of(features.holdout_uri)
            evaluation = EvaluationRef.model_validate(sandbox.result(run, "evaluate"))
    # The champion is that of the split by time.
    *_, note = (one for one in evaluation.verdict.notes if not one.classes)
    assert note.kind == "champion_may_know_groups"
    assert "version 1, the champion, was trained on another split" in f"{note}"
    (by_time, held), (learned, also_held) = found["time"], found["time_and_group"]
    assert also_held.equals(held)
    assert learned.join(held, on=group, how="semi").is_empty()
    assert learned.equals(by_time.join(held, on=group, how="anti", maintain_order="left"))
    assert 0 < learned.height < by_time.height


def test_a_group_that_is_everywhere_leaves_nothing_to_learn_from(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(monkeypatch, group=("origin",))
    with (
        sandbox.enter(small, sandbox.SMALL | {"TRAINING__SPLIT": "time_and_group"}),
        pytest.raises(BadInput, match=r"each of the 3 groups \(origin\) is in the holdout"),
    ):
        _featurize()


@pytest.mark.parametrize("split", ["group", "time_and_group"])
def test_a_split_by_group_needs_one(small: Path, split: str) -> None:
    with (
        sandbox.enter(small, sandbox.SMALL | {"TRAINING__SPLIT": split}),
        pytest.raises(
            BadInput, match=rf"split is \"{split}\", but domain/schema.py names no GROUP"
        ),
    ):
        _featurize()


def test_a_key_on_both_sides_is_refused_by_name(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(monkeypatch, key=("carrier", "origin"))
    with (
        sandbox.enter(small, sandbox.SMALL | {"TRAINING__SPLIT": "random"}),
        pytest.raises(BadInput, match=r"held-out rows have a KEY \(carrier, origin\) that is"),
    ):
        _featurize()


def test_a_feature_that_equals_the_target_is_refused_by_name(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaky = load_problem().model_copy(update={"target": lambda: pl.col("distance")})
    monkeypatch.setattr("flight_delays.stages.featurize.load_problem", lambda: leaky)
    with pytest.raises(BadInput, match="feature 'distance' equals the target in every row"):
        _featurize()


def test_an_hour_that_comes_twice_may_be_either_of_its_partitions() -> None:
    local = pl.Series("at", [datetime(2026, 10, 25, 2, 30), datetime(2026, 10, 25, 3, 30)])
    berlin = Cadence("hour", "Europe/Berlin")
    for partition in ("2026-10-25T00", "2026-10-25T01"):
        assert foreign_partitions(local, berlin, partition).to_list() == ["2026-10-25T02"]


def test_a_new_group_in_schema_may_be_one_word() -> None:
    assert interface.Schema.model_validate(
        {"CONTRACT": load_schema().contract, "LABEL": load_schema().label, "GROUP": "carrier"}
    ).group == ("carrier",)


def _featurize() -> FeaturesRef:
    run = start("training", sandbox.PARTITION)
    return featurize(run, validate(run, ingest(run)))
