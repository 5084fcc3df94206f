"""Features that look back: on the partitions before, never after, and nothing else changes them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sandbox
from example.domain import features as domain
from flight_delays import interface, pipeline
from flight_delays.cli.score_file import score_file
from flight_delays.core import storage
from flight_delays.core.context import Context
from flight_delays.core.errors import BadInput, MissingPartitions
from flight_delays.core.refs import PartitionFile, Run
from flight_delays.stages.featurize import featurize
from flight_delays.stages.ingest import ingest
from flight_delays.stages.start import start
from flight_delays.stages.validate import validate

LOOKBACK = 2
SEEN: list[tuple[str, list[str]]] = []


@pytest.fixture
def looking_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a feature of the example be the mean of the two days before."""

    def features(rows: pl.DataFrame, context: Context) -> pl.DataFrame:
        before = context.before["date"].unique(maintain_order=True).to_list()
        SEEN.append((f"{rows['date'][0]}", [f"{day}" for day in before]))
        mean = context.before["distance"].mean()
        return plain(rows).with_columns(pl.lit(mean, pl.Float32).alias("distance"))

    plain = domain.features
    monkeypatch.setattr(domain, "features", features)
    monkeypatch.setattr(domain, "LOOKBACK", LOOKBACK, raising=False)
    SEEN.clear()
    interface.load_features.cache_clear()
    yield
    interface.load_features.cache_clear()


def days(count: int) -> list[str]:
    """Return as many days up to the partition, oldest first."""
    return [sandbox.day(-back) for back in reversed(range(count))]


def files_of(run: Run) -> dict[str, PartitionFile]:
    """Take a run from raw data to features; returns the files by day."""
    made = featurize(run, validate(run, ingest(run)))
    lists = (made.uri, made.holdout_uri) if made.holdout_uri else (made.uri,)
    return {file.partition: file for uri in lists for file in storage.read_manifest(uri)}


@pytest.fixture
def run(tracked: Path, looking_back: None) -> Iterator[Run]:
    """Return a run of training over five days of a source that can be changed."""
    with sandbox.enter(tracked, sandbox.SMALL):
        yield start("training", sandbox.PARTITION)


def change(root: Path, day: str) -> None:
    """Deliver a day again with other rows."""
    file = root / "data" / "sample" / f"{day}.parquet"
    pl.read_parquet(file).head(-10).write_parquet(file)


def test_each_partition_sees_those_before_it_oldest_first(run: Run) -> None:
    made = files_of(run)
    assert [day for day, _ in SEEN] == days(5)
    assert [before for _, before in SEEN] == [days(7)[at : at + 2] for at in range(5)]
    assert list(made) == days(5)
    expected = pl.concat([sandbox.sample(day) for day in days(3)[:2]])["distance"].mean()
    found = storage.read_parquet(made[sandbox.PARTITION].uri)["distance"]
    assert found.unique().to_list() == [pytest.approx(expected)]


def test_later_partitions_do_not_change_a_rows_features_and_earlier_ones_do(
    run: Run, tracked: Path
) -> None:
    before = files_of(run)
    changed = days(5)[2]
    change(tracked, changed)
    after = files_of(run)
    same = [day for day in before if before[day] == after[day]]
    assert same == days(5)[:2]
    renamed = [day for day in before if before[day].uri != after[day].uri]
    assert renamed == days(5)[2:]


def test_a_partition_that_is_looked_back_on_and_gone_stops_nothing(
    run: Run, tracked: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tracked / "data" / "sample" / f"{days(7)[0]}.parquet").unlink()
    assert list(files_of(run)) == days(5)
    assert f"left out: missing_partition: not at the source [{days(7)[0]}]" in caplog.text
    # What is there is looked at.
    assert SEEN[0] == (days(5)[0], days(7)[1:2])


def test_a_bad_yesterday_does_not_keep_today_from_being_scored(
    run: Run, tracked: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inference = start("inference", sandbox.PARTITION)
    before = files_of(inference)[sandbox.PARTITION]
    yesterday = tracked / "data" / "sample" / f"{days(2)[0]}.parquet"
    for content in (b"PAR1 cut off", None):
        yesterday.write_bytes(content) if content else yesterday.unlink()
        caplog.clear()
        made = files_of(inference)
        assert max(made) == sandbox.PARTITION
        assert days(2)[0] not in made
        # Other features, so another file.
        assert made[sandbox.PARTITION].uri != before.uri
        assert SEEN[-1] == (sandbox.PARTITION, days(3)[:1])
        said = f"features look back on {days(2)[0]}, of which there are no valid rows"
        assert said in caplog.text


def test_a_snapshot_has_nothing_to_look_back_on(project: Path, looking_back: None) -> None:
    variables = {"DATA__CADENCE": "none", "DATA__FILE": f"{sandbox.PARTITION}.parquet"}
    with sandbox.enter(project, variables):
        made = files_of(Run(pipeline="inference", partition="all", key="all", tracking_run_id="x"))
    assert made["all"].rows == sandbox.sample().height
    assert SEEN == [(sandbox.PARTITION, [])]


def test_a_file_is_scored_with_what_the_last_runs_have_validated(
    small: Path, looking_back: None, tmp_path: Path
) -> None:
    pipeline.execute("training", sandbox.PARTITION)
    next_day = sandbox.day(1)
    source = Path(shutil.copy(sandbox.SAMPLE / f"{next_day}.parquet", tmp_path))
    assert "rows predicted by version 1" in score_file(source, tmp_path / "made.csv")
    assert SEEN[-1] == (next_day, days(2))

    both = pl.concat([sandbox.sample(), sandbox.sample(next_day)]).sample(fraction=1, shuffle=True)
    both.write_parquet(source)
    score_file(source, tmp_path / "made.parquet")
    key = list(interface.load_schema().key)
    assert pl.read_parquet(tmp_path / "made.parquet").select(key).equals(both.select(key))

    later = Path(shutil.copy(sandbox.SAMPLE / "2013-02-05.parquet", tmp_path))
    with pytest.raises(MissingPartitions, match="look back on 2013-02-03, which no run"):
        score_file(later, tmp_path / "made.csv")


def test_a_file_without_time_cannot_be_looked_back_from(
    trained: Any, looking_back: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = interface.load_schema().model_copy(update={"time": None})
    monkeypatch.setattr("flight_delays.cli.score_file.load_schema", lambda: schema)
    source = Path(shutil.copy(sandbox.SAMPLE / f"{sandbox.PARTITION}.parquet", tmp_path))
    with pytest.raises(BadInput, match=r"look back on the 2 partitions before .* without TIME"):
        score_file(source, tmp_path / "made.csv")
