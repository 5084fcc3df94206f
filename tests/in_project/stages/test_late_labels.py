"""Labels that come later: training waits for them, scoring does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import sandbox
from flight_delays import pipeline
from flight_delays.core import registry, storage
from flight_delays.core.errors import BadInput, DataRejected, SettingsError
from flight_delays.core.paths import project_root
from flight_delays.core.refs import CandidateRef, FeaturesRef, MonitorRef, ScoresRef
from flight_delays.core.registry import require_champion
from flight_delays.core.settings import load_settings
from flight_delays.interface import load_schema
from flight_delays.sources.reference import load_labels
from sandbox import Trained

LABEL = "arr_delay"
WAITING = sandbox.SMALL | {
    "TRAINING__MIN_LABELLED_SHARE": "0.5",
    "TRAINING__WINDOW": "7",
    "TRAINING__WIDER_WINDOW": "7",
}


def day(back: int) -> str:
    """Return the day that is so many days before the partition."""
    return sandbox.day(-back)


def forget_labels(root: Path, days: list[str], *, column: bool = False) -> None:
    """Deliver days again without their labels, or without their column."""
    for one in days:
        file = root / "data" / "sample" / f"{one}.parquet"
        rows = pl.read_parquet(file)
        null = pl.lit(None, rows.schema[LABEL]).alias(LABEL)
        (rows.drop(LABEL) if column else rows.with_columns(null)).write_parquet(file)


def test_training_takes_the_days_whose_labels_are_in(tracked: Path) -> None:
    forget_labels(tracked, [day(0)])
    forget_labels(tracked, [day(1)], column=True)
    with sandbox.enter(tracked, WAITING):
        run = pipeline.execute("training", sandbox.PARTITION)
        features = FeaturesRef.model_validate(sandbox.result(run, "featurize"))
        candidate = CandidateRef.model_validate(sandbox.result(run, "select"))
        lists = (features.uri, f"{features.holdout_uri}")
        days = [file.partition for uri in lists for file in storage.read_manifest(uri)]
        assert require_champion().tags["trained_until"] == f"{day(4)}"

    assert days == [day(back) for back in (6, 5, 4, 3, 2)]
    assert features.holdout_from == day(3)
    assert candidate.trained_until == day(4)


def test_without_waiting_for_labels_a_day_without_them_is_bad(tracked: Path) -> None:
    forget_labels(tracked, [day(0)])
    with sandbox.enter(tracked, sandbox.SMALL), pytest.raises(DataRejected, match="null_target"):
        pipeline.execute("training", sandbox.PARTITION)


def test_a_window_with_too_few_labels_is_named(tracked: Path) -> None:
    forget_labels(tracked, [day(back) for back in range(5)])
    said = f"2 of 7 partitions up to {day(0)} have a target in 50% of their rows, and 2 are"
    with sandbox.enter(tracked, WAITING), pytest.raises(BadInput, match=said):
        pipeline.execute("training", sandbox.PARTITION)


@pytest.mark.parametrize("name", ["labels.csv", "labels.parquet"])
def test_labels_of_a_table_of_their_own_are_those_that_come_with_the_rows(
    tracked: Path, name: str
) -> None:
    """The column may be missing, null or half full."""
    source = tracked / "data" / "sample"
    days = [day(back) for back in range(7)]
    columns = [*load_schema().key, LABEL]
    labels = pl.concat(pl.read_parquet(source / f"{one}.parquet", columns=columns) for one in days)
    with sandbox.enter(tracked, sandbox.SMALL):
        expected = sandbox.result(pipeline.execute("training", sandbox.PARTITION), "evaluate")
    forget_labels(tracked, days[:2])
    forget_labels(tracked, days[2:], column=True)
    file = tracked / "data" / name
    labels.write_parquet(file) if name.endswith(".parquet") else labels.write_csv(file)
    with sandbox.enter(tracked, sandbox.SMALL | {"DATA__LABELS": f'{{"source": "data/{name}"}}'}):
        found = sandbox.result(pipeline.execute("training", sandbox.PARTITION), "evaluate")

    assert found["metrics"] == expected["metrics"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows.drop(LABEL), f"have no column '{LABEL}'"),
        (lambda rows: pl.concat([rows, rows.head(3)]), "3 of the labels at"),
        (lambda rows: rows.with_columns(pl.lit("late").alias(LABEL)), f"column '{LABEL}' of the"),
        (
            lambda rows: rows.with_columns(pl.lit(1e6).alias(LABEL)),
            f"hold '1000000.0' as '{LABEL}', which is Int16",
        ),
    ],
    ids=["no label", "twice", "words", "too large"],
)
def test_labels_that_cannot_be_joined_are_named(
    tracked: Path, change: Callable[[pl.DataFrame], pl.DataFrame], said: str
) -> None:
    rows = pl.read_parquet(tracked / "data" / "sample" / f"{day(0)}.parquet")
    change(rows.select(*load_schema().key, LABEL)).write_parquet(tracked / "data" / "l.parquet")
    variables = {"DATA__LABELS": '{"source": "data/l.parquet"}'}
    with (
        sandbox.enter(tracked, sandbox.SMALL | variables),
        pytest.raises(SettingsError, match=said),
    ):
        pipeline.execute("training", sandbox.PARTITION)


def test_without_the_table_of_labels_training_stops_and_scoring_goes_on(
    small: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline.execute("training", sandbox.PARTITION)
    variables = sandbox.SMALL | {"DATA__LABELS": '{"source": "data/not-yet.parquet"}'}
    with sandbox.enter(small, variables):
        with pytest.raises(SettingsError, match=r"labels at .*not-yet\.parquet: "):
            pipeline.execute("training", sandbox.PARTITION)
        run = pipeline.execute("inference", sandbox.day(1))
        assert ScoresRef.model_validate(sandbox.result(run, "score")).rows > 0
    assert "scored without labels: labels at" in caplog.text


def test_a_label_without_a_key_is_nobodys(tracked: Path) -> None:
    rows = pl.read_parquet(tracked / "data" / "sample" / f"{day(0)}.parquet")
    key = load_schema().key
    labels = rows.select(*key, LABEL)
    nobody = labels.head(2).with_columns(pl.lit(None, rows.schema[key[0]]).alias(key[0]))
    pl.concat([labels, nobody]).write_parquet(tracked / "data" / "l.parquet")
    with sandbox.enter(tracked, {"DATA__LABELS": '{"source": "data/l.parquet"}'}):
        found = load_labels(load_settings())
    assert found is not None
    assert found.rows.height == labels.drop_nulls().height


def test_live_performance_is_measured_once_labels_are_in(small: Path, tmp_path: Path) -> None:
    pipeline.execute("training", sandbox.PARTITION)
    days = [sandbox.day(1), sandbox.day(2)]
    source = tmp_path / "data" / "sample"
    source.parent.mkdir()
    delivered = sandbox.source_of(source, days)
    labelled = {one: (source / f"{one}.parquet").read_bytes() for one in days}
    forget_labels(tmp_path, days)
    with sandbox.enter(small, sandbox.SMALL | delivered):
        early = pipeline.execute("inference", days[0])
        (source / f"{days[0]}.parquet").write_bytes(labelled[days[0]])
        late = pipeline.execute("inference", days[1])
        found = [
            MonitorRef.model_validate(sandbox.result(run, "monitor")).live_metrics
            for run in (early, late)
        ]
        scores = ScoresRef.model_validate(sandbox.result(early, "score"))
        assert storage.read_parquet(scores.uri).height == scores.rows > 0

    assert found[0] == {}
    assert sandbox.PRIMARY in found[1]


def test_predictions_that_cannot_be_read_stop_no_later_partition(
    small: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline.execute("training", sandbox.PARTITION)
    first, second = sandbox.day(1), sandbox.day(2)
    pipeline.execute("inference", first)
    broken = storage.artifact_path("predictions", f"{first}.parquet")
    broken.write_bytes(broken.read_bytes()[:100])
    run = pipeline.execute("inference", second)
    assert sandbox.PRIMARY in MonitorRef.model_validate(sandbox.result(run, "monitor")).live_metrics
    assert f"{broken} cannot be read: run inference for it again" in caplog.text


def live(partition: str, window: int) -> dict[str, float]:
    """Score a partition; returns what is measured of so many partitions up to it."""
    with sandbox.enter(project_root(), {"MONITORING__WINDOW": f"{window}"}):
        run = pipeline.execute("inference", partition)
        return MonitorRef.model_validate(sandbox.result(run, "monitor")).live_metrics


def test_a_champion_is_not_measured_on_what_it_learned_from(
    trained: Trained, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a backfill of inference after a new champion: what it has seen would flatter it."""
    until = require_champion().tags["trained_until"]
    assert until == day(7)
    unseen = live(day(6), 1)
    assert sandbox.PRIMARY in unseen
    assert live(until, 1) == {}
    caplog.clear()
    assert live(day(6), 2) == unseen
    [line] = [one.message for one in caplog.records if "left out" in one.message]
    assert line.endswith(f": {until} (version 1 is trained until {until})")


def test_predictions_of_a_version_that_is_gone_are_not_measured(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(registry, "registered", list)
    assert live(day(6), 1) == {}
    assert "what version 1 learned from is not known" in caplog.text
