"""One bad day stops only itself: an earlier one is left out, and named once."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sandbox
from deliveries import DAY, DAYS, Inbox, deliver, put
from flight_delays import pipeline
from flight_delays.core import storage
from flight_delays.core.errors import BadInput, DataRejected, MissingPartitions
from flight_delays.core.refs import DatasetRef, Pipeline, Run
from flight_delays.reporting.terminal import print_result
from flight_delays.stages.featurize import featurize
from flight_delays.stages.ingest import ingest, wider_window_is_available
from flight_delays.stages.validate import validate
from rich.console import Console

BAD = DAYS[2]
Change = Callable[[pl.DataFrame], pl.DataFrame | bytes | None]

BAD_DAYS: dict[str, tuple[Change, str]] = {
    "gone": (lambda rows: None, "missing_partition: not at the source"),
    "cut": (lambda rows: sandbox.as_parquet(rows)[:-100], "unreadable_file: "),
    "empty": (lambda rows: b"", "empty_file: the file has no bytes"),
    "of no rows": (lambda rows: pl.DataFrame(), "too_few_rows: 0 rows"),
    "of too few rows": (lambda rows: rows.head(3), "too_few_rows: 3 rows, at least 100 needed"),
    "without labels": (put("arr_delay", None), "null_target: arr_delay is null in"),
    "of another type": (lambda rows: rows.cast({"distance": pl.String}), "wrong_type: distance"),
    "the day before again": (
        lambda rows: (sandbox.SAMPLE / f"{DAYS[1]}.parquet").read_bytes(),
        f"duplicate_partition: the file equals that of {DAYS[1]}",
    ),
    "today already": (
        lambda rows: (sandbox.SAMPLE / f"{DAY}.parquet").read_bytes(),
        "wrong_partition: ",
    ),
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return the folder that `deliver` makes the source of the pipeline."""
    return tmp_path / "source"


def deliver_badly(source: Path, change: Change) -> dict[str, str]:
    """Deliver good days, but for one in the middle; returns the variables of the source."""
    variables = deliver(source, sandbox.sample())
    file, content = source / f"{BAD}.parquet", change(sandbox.sample(BAD))
    if content is None:
        file.unlink()
    elif isinstance(content, bytes):
        file.write_bytes(content)
    else:
        content.write_parquet(file)
    return variables


def run_of(pipeline_name: Pipeline = "training") -> Run:
    return Run(pipeline=pipeline_name, partition=DAY, key="left-out", tracking_run_id="known")


def validated(pipeline_name: Pipeline = "training") -> tuple[Run, DatasetRef]:
    run = run_of(pipeline_name)
    return run, validate(run, ingest(run))


# What is scored needs no labels.
BOTH: list[tuple[str, Pipeline]] = [
    *((case, "training") for case in BAD_DAYS),
    *((case, "inference") for case in BAD_DAYS if case != "without labels"),
]


@pytest.mark.parametrize(("case", "name"), BOTH)
def test_an_earlier_bad_day_is_left_out_and_named_once(
    trained: Any, source: Path, caplog: pytest.LogCaptureFixture, case: str, name: Pipeline
) -> None:
    change, why = BAD_DAYS[case]
    with sandbox.enter(trained.root, deliver_badly(source, change)):
        run, valid = validated(name)
        days = [file.partition for file in storage.read_manifest(valid.uri)]
        made = featurize(run, valid)
    assert days == [day for day in DAYS if day != BAD]
    assert made.rows > 0
    assert {one.partition for one in valid.left_out} == {BAD}
    assert str(valid.left_out[0]).startswith(why)
    told = [line for line in caplog.messages if "partitions left out" in line and BAD in line]
    assert len(told) == 1
    assert why in told[0]


def test_a_training_goes_on_without_a_bad_day_and_its_table_and_report_name_it(
    small: Path, source: Path, inbox: Inbox
) -> None:
    with sandbox.enter(small, deliver_badly(source, lambda rows: b"PAR1 cut off")):
        run = pipeline.execute("training", DAY)
        console = Console(width=300, record=True, file=io.StringIO())
        print_result(console, run.key)
        page = storage.path_of(sandbox.result(run, "report")["uri"]).read_text()
        assert sandbox.registry().champion == 1
    assert f"[{BAD}]" in console.export_text()
    assert f"[{BAD}]" in page
    assert "unreadable_file" in page
    assert [event["kind"] for event in inbox()] == ["champion_changed"]


def test_a_repaired_day_is_taken_by_the_next_run(trained: Any, source: Path) -> None:
    with sandbox.enter(trained.root, deliver_badly(source, lambda rows: b"PAR1 cut off")):
        assert validated()[1].left_out
        sandbox.sample(BAD).write_parquet(source / f"{BAD}.parquet")
        _, valid = validated()
    assert valid.left_out == ()
    assert [file.partition for file in storage.read_manifest(valid.uri)] == DAYS


def test_too_few_good_days_are_an_error_that_names_the_setting_and_the_days(
    trained: Any, source: Path
) -> None:
    variables = deliver(source, sandbox.sample())
    for day in DAYS[:3]:
        sandbox.sample(day).drop("distance").write_parquet(source / f"{day}.parquet")
    said = r"2 of 5 partitions are good, at least 50% must be \(min_partitions_share in"
    with sandbox.enter(trained.root, variables):
        with pytest.raises(DataRejected, match=said) as caught:
            validated()
        assert validated("inference")[1].rows > 0
    assert [one.partition for one in caught.value.violations[1:]] == DAYS[:3]
    for day in DAYS[:3]:
        (source / f"{day}.parquet").unlink()
    said = f"lacks 3 of 5 partitions: {', '.join(DAYS[:3])}. .* 50% of the window must be there"
    with sandbox.enter(trained.root, variables), pytest.raises(MissingPartitions, match=said):
        validated()


def test_a_partition_before_the_source_begins_is_missing(trained: Any, source: Path) -> None:
    before = run_of("inference").model_copy(update={"partition": sandbox.day(-30)})
    with (
        sandbox.enter(trained.root, deliver(source, sandbox.sample())),
        pytest.raises(MissingPartitions, match=r"lacks 1 of 1 partitions: .* a smaller window$"),
    ):
        ingest(before)


def test_a_team_may_ask_for_each_partition(trained: Any, source: Path) -> None:
    variables = deliver_badly(source, lambda rows: b"PAR1 cut off")
    with (
        sandbox.enter(trained.root, variables | {"TRAINING__MIN_PARTITIONS_SHARE": "1"}),
        pytest.raises(DataRejected, match="4 of 5 partitions are good"),
    ):
        validated()


def test_what_is_left_may_be_too_little_to_hold_out(trained: Any, source: Path) -> None:
    variables = deliver(source, sandbox.sample())
    for day in DAYS[:2]:
        (source / f"{day}.parquet").unlink()
    more = {"TRAINING__HOLDOUT": "3"}
    with sandbox.enter(trained.root, variables | more):
        run, valid = validated()
        with pytest.raises(BadInput, match=r"3 of 3 partitions .* and 3 are held out"):
            featurize(run, valid)


def test_a_gap_in_the_wider_window_does_not_hide_the_rest_of_it(trained: Any, source: Path) -> None:
    earlier = [sandbox.day(-back) for back in (7, 5)]
    variables = sandbox.SMALL | sandbox.source_of(source, [*earlier, *DAYS])
    with sandbox.enter(trained.root, variables | {"TRAINING__WIDER_WINDOW": "8"}):
        assert wider_window_is_available(run_of())
        for day in earlier:
            (source / f"{day}.parquet").unlink()
        assert not wider_window_is_available(run_of())


# --- far fewer rows than before -----------------------------------------------------------------


def test_far_fewer_rows_than_before_are_said_in_log_table_and_report(
    trained: Any, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = sandbox.sample().sample(fraction=1, shuffle=True, seed=3).head(140)
    with sandbox.enter(trained.root, deliver(source, rows)):
        run = pipeline.execute("inference", DAY)
        console = Console(width=300, record=True, file=io.StringIO())
        print_result(console, run.key)
        page = storage.path_of(sandbox.result(run, "report")["uri"]).read_text()
    assert sandbox.result(run, "score")["rows"] == 140
    (told,) = (one for one in caplog.records if "far_fewer_rows: " in one.getMessage())
    assert told.levelname == "WARNING"
    assert "140 rows, far fewer than the" in told.getMessage()
    for text in (console.export_text(), page):
        assert "140 rows, far fewer than the" in text


def test_rows_in_quarantine_and_a_column_without_values_are_said_in_log_table_and_report(
    trained: Any, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = sandbox.sample().with_columns(pl.lit(None, pl.Float32).alias("visib"))
    first = pl.int_range(pl.len()) < 2
    rows = rows.with_columns(pl.when(first).then(pl.lit("??")).otherwise("origin").alias("origin"))
    nulls = {"VALIDATION__MAX_NULL_SHARE": "1"}
    with sandbox.enter(trained.root, deliver(source, rows) | nulls):
        run = pipeline.execute("inference", DAY)
        console = Console(width=300, record=True, file=io.StringIO())
        print_result(console, run.key)
        page = storage.path_of(sandbox.result(run, "report")["uri"]).read_text()
    no_value = f"visib has no value in any row, unlike in {DAYS[-2]}"
    left_out = f"2 of {rows.height} rows break the contract and are left out"
    assert no_value in caplog.text
    assert f"quarantined 2 of {rows.height} rows" in caplog.text
    table = console.export_text()
    assert [one for one in (no_value, left_out) if one not in table or one not in page] == []


def test_a_word_among_numbers_is_named(trained: Any, source: Path) -> None:
    text = pl.col("distance").cast(pl.String)
    first = pl.int_range(pl.len()) == 0
    rows = sandbox.sample().with_columns(pl.when(first).then(pl.lit("far")).otherwise(text))
    rows = rows.with_columns(pl.col("literal").alias("distance")).drop("literal")
    with (
        sandbox.enter(trained.root, deliver(source, rows)),
        pytest.raises(DataRejected, match="distance is String, not Int16; such text is 'far'"),
    ):
        validated()


def test_a_partition_that_has_not_ended_is_no_missing_one(project: Path, source: Path) -> None:
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    with sandbox.enter(project, deliver(source, sandbox.sample())):
        run = Run(pipeline="inference", partition=today, key="k", tracking_run_id="known")
        with pytest.raises(MissingPartitions, match=f"{today} ends at .* UTC and is not complete"):
            ingest(run)


@pytest.mark.parametrize(
    ("setting", "stops"),
    [({"VALIDATION__FEW_ROWS": "reject"}, True), ({"VALIDATION__MIN_ROWS_SHARE": "0"}, False)],
)
def test_far_fewer_rows_stop_a_run_where_it_is_set(
    trained: Any, source: Path, setting: dict[str, str], stops: bool
) -> None:
    rows = sandbox.sample().sample(fraction=1, shuffle=True, seed=3).head(140)
    with sandbox.enter(trained.root, deliver(source, rows) | setting):
        if stops:
            with pytest.raises(DataRejected, match="far_fewer_rows: 140 rows"):
                validated("inference")
        else:
            assert validated("inference")[1].warnings == ()


def test_one_or_two_days_before_say_little(trained: Any, source: Path) -> None:
    variables = deliver(source, sandbox.sample().sample(140, seed=3))
    for day in DAYS[:2]:
        (source / f"{day}.parquet").unlink()
    with sandbox.enter(trained.root, variables):
        assert validated("inference")[1].warnings == ()
