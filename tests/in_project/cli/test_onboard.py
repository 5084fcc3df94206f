"""Onboarding: what is seen in a table, what is proposed, and what is written."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import polars as pl
import pytest
import sandbox
from flight_delays import interface, pipeline
from flight_delays.cli import app as cli
from flight_delays.cli.onboard.command import _train
from flight_delays.cli.onboard.infer import infer
from flight_delays.cli.onboard.look import Table, look
from flight_delays.cli.onboard.plan import Asked, Plan
from flight_delays.cli.onboard.write import sample_frames, set_values, write
from flight_delays.core import registry, tracking
from flight_delays.core.context import Context
from flight_delays.core.errors import BadInput
from flight_delays.core.settings import load_settings
from flight_delays.sources.conform import conform
from flight_delays.sources.read import parse
from typer.testing import CliRunner, Result

DOMAIN = "src/flight_delays/domain"
Save = Callable[[pl.DataFrame], str]


def customers(rows: int = 600, **more: Any) -> pl.DataFrame:
    """Return a table with a column of every kind; 30 rows a day."""
    random = np.random.default_rng(7)
    age = random.integers(18, 90, rows)
    columns: dict[str, Any] = {
        "customer_id": random.permutation(rows) + 1000,
        "day": [date(2026, 1, 1) + timedelta(days=number // 30) for number in range(rows)],
        "age": age,
        "income": np.where(random.random(rows) < 0.1, np.nan, random.normal(3000, 800, rows)),
        "plan": random.choice(["basic", "plus", "pro"], rows),
        "is_new": random.random(rows) < 0.5,
        "note": [f"text {number}" for number in range(rows)],
        "country": ["DE"] * rows,
        "left": np.where(age + random.normal(0, 15, rows) > 55, "yes", "no"),
    }
    frame = pl.DataFrame(columns | more)
    return frame.with_columns(pl.col("income").fill_nan(None))


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Return a function that writes a table to a file and returns its address."""

    def save(frame: pl.DataFrame) -> str:
        path = tmp_path / "table.parquet"
        frame.write_parquet(path)
        return f"{path}"

    return save


@pytest.fixture
def fresh(project: Path) -> Path:
    """Return a project in which all that is a team's is still the template's."""
    for folder in (DOMAIN, "tests/domain", "tests/example/domain"):
        shutil.copytree(sandbox.CHECKOUT / folder, project / folder)
    # What the checkout's team has made of them must not matter here.
    shutil.copytree(project / "tests/example/domain", project / DOMAIN, dirs_exist_ok=True)
    return project


def proposed(frame: pl.DataFrame, save: Save, target: str = "left", **asked: Any) -> Plan:
    """Return what is proposed for a table."""
    return infer(look(save(frame)), Asked(target, **asked))


def onboard(*arguments: str) -> Result:
    """Run the command without training."""
    runner = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
    return runner.invoke(cli.app, ["onboard", *arguments, "--no-train"])


def refused(*arguments: str) -> str:
    """Return what the command says when it does not go on."""
    done = onboard(*arguments)
    assert isinstance(done.exception, BadInput), done.output
    return f"{done.exception}"


def contents(root: Path) -> dict[str, bytes]:
    """Return the files of a project, but for the state that it writes."""
    files = (path for path in root.rglob("*") if path.is_file() and "var" not in path.parts)
    return {f"{path.relative_to(root)}": path.read_bytes() for path in files}


# What a table is


def test_a_column_is_measured_as_a_whole(save: Save) -> None:
    seen = look(save(customers()))

    assert (seen.rows, seen.is_small, seen.sample.height) == (600, True, 600)
    age, income = seen.columns["age"], seen.columns["income"]
    assert age.dtype == pl.Int64
    assert (age.nulls, age.low, age.high) == (0, 18, 89)
    assert income.nulls == customers()["income"].null_count()
    assert seen.columns["plan"].distinct == 3


def test_of_a_large_table_rows_are_taken_evenly(
    save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flight_delays.cli.onboard.look.SAMPLE_ROWS", 100)
    seen = look(save(customers()))

    assert not seen.is_small
    assert seen.rows == 600
    assert seen.sample["day"].n_unique() == 20
    assert 90 <= seen.sample.height <= 110


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ("größe;seen;y\n1,5;01.02.2026;a\n2,25;02.02.2026;b\n".encode(), "decimal commas"),
        ("größe;seen;y\n1,5;01.02.2026;a\n2,25;02.02.2026;b\n".encode("cp1252"), "not UTF-8"),
        (b"\xef\xbb\xbf" + "größe,seen,y\n1.5,2026-02-01,a\n2.25,2026-02-02,b\n".encode(), ""),
        ("größe\tseen\ty\n1.5\t2026-02-01\ta\n2.25\t2026-02-02\tb\n".encode(), r"'\t'"),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_csv_is_read_in_its_own_dialect(
    tmp_path: Path, content: bytes, note: str, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / ("t.csv" if pack is bytes else "t.csv.gz")
    path.write_bytes(pack(content))
    seen = look(f"{path}")

    assert note in "; ".join(seen.notes)
    assert seen.sample["größe"].to_list() == [1.5, 2.25]
    assert seen.sample["seen"].to_list() == [date(2026, 2, 1), date(2026, 2, 2)]


def test_two_columns_of_one_name_are_told_apart_and_one_without_is_left_out(
    tmp_path: Path,
) -> None:
    (tmp_path / "t.csv").write_text(",a,a,*,^a.*$\n0,1,x,5,6\n1,2,y,7,8\n")
    seen = look(f"{tmp_path / 't.csv'}")

    assert list(seen.columns) == ["a", "a_duplicated_0"]
    assert "now called 'a_duplicated_0'" in "; ".join(seen.notes)
    assert "has no name" in "; ".join(seen.notes)
    assert "column '^a.*$' has a name that stands for others" in "; ".join(seen.notes)


def test_a_database_is_a_table_like_any_other(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as database:
        database.execute("CREATE TABLE orders (day TEXT, amount REAL, kind TEXT)")
        rows = [(f"2026-01-{n % 28 + 1:02}", n / 7, "ab"[n % 2]) for n in range(280)]
        database.executemany("INSERT INTO orders VALUES (?, ?, ?)", rows)
    seen = look(f"sqlite:///{tmp_path / 'shop.db'}", "orders")
    plan = infer(seen, Asked("amount"))

    assert (seen.rows, plan.time, plan.cadence.unit) == (280, "day", "day")
    settings = tomllib.loads(_files(seen, plan)["config/pipeline.toml"])["data"]
    assert settings["kind"] == "sql"
    assert '"day" >= :start AND "day" < :end' in settings["query"]
    with pytest.raises(BadInput, match="does not answer 'SELECT \\* FROM gone'"):
        look(f"sqlite:///{tmp_path / 'shop.db'}", "gone")


# What is proposed


def test_every_column_gets_a_role(save: Save) -> None:
    plan = proposed(customers(), save)

    assert (plan.problem, plan.time, plan.cadence.unit) == ("classification", "day", "day")
    assert plan.key == ("customer_id",)
    assert plan.numeric == ("age", "income", "is_new")
    assert plan.categorical == ("plan",)
    assert [part.name for part in plan.parts] == ["day_weekday"]
    assert plan.left_out["country"] == "constant"
    assert "names the row" in plan.left_out["customer_id"] or "id" in plan.left_out["customer_id"]
    assert "id-like" in plan.left_out["note"]
    assert "20 days in a row" in plan.reasons["cadence"]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ([True, False], "classification"),
        (["a", "b", "c"], "classification"),
        ([0, 1], "classification"),
        ([0.0, 1.0, 2.0], "classification"),
        (list(range(40)), "regression"),
        ([1.5, 2.25], "regression"),
    ],
)
def test_classes_and_numbers_are_told_apart(save: Save, values: list[Any], problem: str) -> None:
    frame = customers().with_columns(pl.Series("left", (values * 600)[:600]))
    assert proposed(frame, save).problem == problem


@pytest.mark.parametrize(
    "leak",
    [
        pl.col("left"),
        pl.col("left") == "yes",
        pl.col("left").replace_strict({"yes": 17, "no": 4}),
        pl.when(pl.col("left") == "yes").then(pl.col("age") + 500).otherwise(pl.col("age") - 500),
    ],
    ids=["equal", "boolean", "code", "number"],
)
def test_a_column_that_knows_the_target_is_no_feature(save: Save, leak: pl.Expr) -> None:
    plan = proposed(customers().with_columns(leak.alias("closed")), save)

    assert "closed" not in (*plan.numeric, *plan.categorical, *plan.contract)
    assert "leak-like" in plan.suspicious["closed"]
    assert "age" in plan.numeric


def test_a_number_that_knows_the_target_is_no_feature(save: Save) -> None:
    frame = customers().with_columns(spent=pl.col("age") * 3.5 + 2).drop("left")
    plan = proposed(frame.with_columns(score=pl.col("spent").log()), save, "spent")

    assert {"age", "score"} <= plan.left_out.keys()
    assert "income" in plan.numeric


@pytest.mark.parametrize(
    ("step", "per", "unit"),
    [
        (timedelta(minutes=1), 1, "hour"),
        (timedelta(hours=1), 3, "day"),
        (timedelta(days=1), 6, "week"),
        (timedelta(days=7), 8, "month"),
    ],
)
def test_the_finest_cadence_with_enough_rows_is_proposed(
    save: Save, step: timedelta, per: int, unit: str
) -> None:
    start = datetime(2025, 1, 6)
    frame = customers(1200).drop("day")
    at = [start + step * (number // per) for number in range(1200)]
    plan = proposed(frame.with_columns(pl.Series("at", at)), save)

    assert (plan.time, plan.cadence.unit) == ("at", unit)
    assert plan.windows.window >= plan.windows.holdout + 2
    assert plan.windows.wider >= plan.windows.window


def test_the_window_ends_at_a_gap(save: Save) -> None:
    gone = [date(2026, 1, day) for day in (8, 9, 10)]
    frame = customers().filter(~pl.col("day").is_in(gone))
    plan = proposed(frame, save, cadence="day")

    assert plan.windows.wider == 10
    assert plan.windows.newest == "2026-01-20"


def test_without_a_time_rows_of_one_thing_stay_together(save: Save) -> None:
    frame = customers().drop("day", "customer_id", "note")
    visits = frame.with_columns(patient_id=pl.int_range(600) % 90)
    plan = proposed(visits, save)

    assert (plan.time, plan.cadence.unit, plan.group) == (None, "none", ("patient_id",))
    assert "patient_id" not in plan.numeric
    assert proposed(frame, save).group == ()


def test_a_key_that_only_the_time_makes_unique_is_joined_by_it(save: Save) -> None:
    frame = customers().with_columns(shop=pl.int_range(600) % 30)
    plan = proposed(frame, save, key=("shop",))

    assert plan.key == ("day", "shop")
    with pytest.raises(BadInput, match="--key plan: several rows share it"):
        proposed(frame, save, key=("plan",))


def test_a_few_texts_that_are_no_time_leave_a_column_one(
    fresh: Path, save: Save, tmp_path: Path
) -> None:
    days = pl.when(pl.int_range(600).is_in([3, 400])).then(pl.lit("soon"))
    rows = customers().with_columns(days.otherwise(pl.col("day").cast(pl.String)).alias("day"))
    rows.write_csv(tmp_path / "table.csv")
    table = look(f"{tmp_path / 'table.csv'}")
    plan = infer(table, Asked("left"))

    assert "taken as a time, but for 'soon'" in "; ".join(table.notes)
    assert (plan.time, plan.cadence.unit) == ("day", "day")
    assert plan.reasons["time"].endswith(
        "2 rows have none that can be read and are left out of the sample"
    )
    # What is written agrees with itself.
    assert onboard(f"{tmp_path / 'table.csv'}", "--target", "left").exit_code == 0
    sample = pl.read_parquet(fresh / "data/sample/rows.parquet")
    assert (sample.height, sample["day"].null_count()) == (598, 0)
    day = (fresh / DOMAIN / "schema.py").read_text().partition('"day": pa.Column(')[2]
    assert "nullable" not in day.partition("),")[0]


def test_a_time_that_many_rows_lack_is_refused_and_not_proposed(save: Save) -> None:
    lacks = pl.when(pl.int_range(600) % 10 > 0).then("day").alias("day")
    assert proposed(customers().with_columns(lacks), save).time is None
    with pytest.raises(BadInput, match="--time day: 60 of 600 rows have none that can be read"):
        proposed(customers().with_columns(lacks), save, time="day")


def test_one_row_a_day_can_be_trained_on(save: Save) -> None:
    rows = customers().filter(pl.int_range(600) % 30 == 0)
    table = look(save(rows))
    plan = infer(table, Asked("left", "day", cadence="day"))
    limits = tomllib.loads(_files(table, plan)["config/pipeline.toml"])["validation"]
    assert limits["min_rows"] == 1


@pytest.mark.parametrize("kind", ["table", "files"])
def test_features_that_move_by_themselves_ask_for_no_new_model(
    save: Save, tmp_path: Path, kind: str
) -> None:
    days = 60
    random = np.random.default_rng(7)
    day = np.repeat(np.arange(days), 30)
    columns = {
        "day": [date(2026, 1, 1) + timedelta(days=int(one)) for one in day],
        "warmth": day + random.normal(0, 1, len(day)),
        "height": random.normal(0, 1, len(day)),
        "plan": random.choice(["basic", "plus"], len(day)),
        "offer": [f"of month {one // 10}" for one in day],
        "left": random.choice(["yes", "no"], len(day)),
    }
    frame = pl.DataFrame(columns)
    address = save(frame)
    if kind == "files":
        frame = frame.rename({"day": "due"})
        for (one,), rows in frame.partition_by("due", as_dict=True).items():
            rows.drop("due").write_parquet(tmp_path / f"on-{one}.parquet")
        address = f"{tmp_path}/on-{{partition}}.parquet"
    table = look(address)
    plan = infer(table, Asked("left"))

    assert plan.steady == ("height", "plan")
    assert plan.reasons["steady"].startswith("drift in 12 past windows was counted; ")
    assert "warmth (12)" in plan.reasons["steady"]
    features = "".join(_files(table, plan)[f"{DOMAIN}/features.py"].split())
    assert 'STABLE_FEATURES=("height","plan",)' in features


def test_of_a_short_past_no_feature_is_said_to_move(save: Save) -> None:
    plan = proposed(customers(), save)
    assert {"age", "income", "plan"} <= set(plan.steady)
    assert "past windows are too few" in plan.reasons["steady"]


def test_points_between_thousands_are_read_by_onboarding_and_by_the_pipeline(
    fresh: Path, tmp_path: Path
) -> None:
    rows = customers().with_columns(
        pl.when(pl.int_range(600) % 2 == 0)
        .then(pl.lit("1.234,56"))
        .otherwise(pl.int_range(600).cast(pl.String) + ",5")
        .alias("income")
    )
    rows.write_csv(tmp_path / "table.csv", separator=";")
    seen = look(f"{tmp_path / 'table.csv'}")
    assert seen.columns["income"].dtype == pl.Float64
    assert (seen.columns["income"].high, seen.columns["income"].nulls) == (1234.56, 0)

    assert onboard(f"{tmp_path / 'table.csv'}", "--target", "left").exit_code == 0
    # The next file may be as the first one was.
    csv = tomllib.loads((fresh / "config/pipeline.toml").read_text())["data"]["csv"]
    assert (csv["separator"], csv["decimal_comma"]) == (";", True)
    interface.load_schema.cache_clear()
    data = b"age;income\n1;1.234,56\n2;12,5\n3;1.000.000\n4;7\n"
    types = SimpleNamespace(types={"age": pl.Int64(), "income": pl.Float64()})
    with mock.patch("flight_delays.sources.read.load_schema", return_value=types):
        read = parse(data, ".csv")
    assert read["income"].to_list() == ["1234.56", "12.5", "1000000", "7"]


@pytest.mark.parametrize("form", ["%m/%d/%Y", "%d/%m/%Y"])
@pytest.mark.parametrize("kind", ["table", "files"])
def test_days_with_slashes_are_read_by_onboarding_and_by_the_pipeline(
    fresh: Path, tmp_path: Path, form: str, kind: str
) -> None:
    rows = customers().with_columns(pl.col("day").dt.to_string(form))
    address = f"{tmp_path}/table.csv"
    if kind == "files":
        # In a single one of them, nobody could know.
        address = f"{tmp_path}/on-{{partition}}.csv"
        for (day,), part in customers().partition_by("day", as_dict=True).items():
            part.with_columns(pl.col("day").dt.to_string(form)).write_csv(
                tmp_path / f"on-{day}.csv"
            )
    else:
        rows.write_csv(address)
    seen = look(address)
    assert (seen.columns["day"].low, seen.columns["day"].high) == (
        date(2026, 1, 1),
        date(2026, 1, 20),
    )

    assert onboard(address, "--target", "left").exit_code == 0
    assert (
        tomllib.loads((fresh / "config/pipeline.toml").read_text())["data"]["csv"]["date_format"]
        == form
    )
    types = SimpleNamespace(types={"day": pl.Date(), "left": pl.String()})
    text = f"day,left\n{date(2026, 1, 5):{form}},yes\n2026-01-06,no\nsoon,no\n"
    with mock.patch("flight_delays.sources.read.load_schema", return_value=types):
        typed = conform(parse(text.encode(), ".csv"), types.types).rows
    assert typed["day"].to_list() == [date(2026, 1, 5), date(2026, 1, 6), None]


def test_days_that_may_be_months_stay_text(save: Save, tmp_path: Path) -> None:
    rows = customers().with_columns(day=pl.lit("03/04/2026"))
    rows.write_csv(tmp_path / "table.csv")
    table = look(f"{tmp_path / 'table.csv'}")
    assert table.columns["day"].dtype == pl.String
    assert "nobody knows whether the day or the month comes first" in "; ".join(table.notes)
    with pytest.raises(BadInput, match="--time day: of '03/04/2026' nobody knows whether the day"):
        infer(table, Asked("left", "day"))


def test_commas_between_thousands_are_taken_for_no_decimals(tmp_path: Path) -> None:
    rows = customers().with_columns(income=pl.lit("1,234"))
    rows.write_csv(tmp_path / "table.csv")
    assert look(f"{tmp_path / 'table.csv'}").columns["income"].dtype == pl.String


def test_a_table_that_is_no_csv_leaves_no_dialect_of_the_one_before(
    fresh: Path, save: Save, tmp_path: Path
) -> None:
    customers().write_csv(tmp_path / "table.csv", separator=";")
    assert onboard(f"{tmp_path / 'table.csv'}", "--target", "left").exit_code == 0
    assert onboard(save(customers()), "--target", "left").exit_code == 0
    assert "csv" not in tomllib.loads((fresh / "config/pipeline.toml").read_text())["data"]


def test_files_of_which_some_lack_a_column_are_one_table(tmp_path: Path) -> None:
    for number, rows in enumerate(customers().iter_slices(100)):
        rows.drop(["income"] if number == 3 else []).write_parquet(tmp_path / f"{number}.parquet")
    table = look(f"{tmp_path}")

    assert table.rows == 600
    assert f"1 of 6 files lack a column, which is null there: '{tmp_path}/3.parquet'" in "; ".join(
        table.notes
    )
    assert "income" in infer(table, Asked("left")).numeric


def test_a_large_partition_without_a_value_is_no_measure_of_missing_values(save: Save) -> None:
    rows = customers().with_columns(
        pl.when(pl.col("day") != date(2026, 1, 7)).then("income").alias("income")
    )
    table = look(save(rows))
    text = _files(table, infer(table, Asked("left")))[f"{DOMAIN}/schema.py"]
    (share,) = re.findall(r'"max_null_share": ([\d.]+)', text)
    assert float(share) < 0.5


def test_a_number_that_counts_on_is_the_key_and_has_no_bounds(save: Save) -> None:
    random = np.random.default_rng(7)
    rows = customers().drop("customer_id", "note")
    rows = rows.with_columns(Bestellung=pl.Series(100_000 + np.cumsum(random.integers(1, 5, 600))))
    table = look(save(rows))
    plan = infer(table, Asked("left"))

    assert plan.key == ("Bestellung",)
    schema = _files(table, plan)[f"{DOMAIN}/schema.py"]
    assert "in_range" not in schema.partition('"Bestellung": pa.Column(')[2].partition("),")[0]
    # By chance, half of what is measured would be there twice.
    assert proposed(customers().drop("customer_id", "note"), save).key == ()


@pytest.mark.parametrize(
    ("missing", "unit", "partitions"),
    [
        # Closed on Sundays; only on Mondays and Tuesdays; closed for a month.
        ([6], "day", 120),
        ([2, 3, 4, 5, 6], "week", 17),
        (range(40, 70), "day", 50),
    ],
)
def test_days_may_be_missing_but_not_for_long(
    save: Save, missing: list[int] | range, unit: str, partitions: int
) -> None:
    days = [date(2026, 1, 1) + timedelta(days=number // 30) for number in range(3600)]
    rows = customers(3600).with_columns(day=pl.Series(days))
    if isinstance(missing, range):
        rows = rows.filter(~(pl.int_range(3600) // 30).is_in(list(missing)))
    else:
        rows = rows.filter(~(pl.col("day").dt.weekday() - 1).is_in(missing))
    plan = proposed(rows, save)

    assert plan.cadence.unit == unit
    # Up to a third more than the window, where there are as many.
    assert plan.windows.wider == partitions
    assert ("in a row" in plan.reasons["cadence"]) is (missing != [6])


def test_a_newest_week_that_has_only_begun_is_left_out(save: Save) -> None:
    days = [date(2026, 1, 5) + timedelta(days=number // 5) for number in range(290)]
    plan = proposed(customers(290).with_columns(day=pl.Series(days)), save)

    assert (plan.cadence.unit, plan.windows.newest) == ("week", "2026-W09")
    assert plan.reasons["cadence"].endswith("; 2026-W10 has 10 and may not be complete")
    # It is scored all the same.
    assert plan.windows.least_rows == 10


def test_numbers_with_a_unit_are_no_categories(save: Save) -> None:
    rows = customers().with_columns(
        plan=pl.concat_str(pl.col("age"), pl.lit("%")),
        note=pl.concat_str(pl.lit("$"), pl.col("age"), pl.lit(".50")),
    )
    plan = proposed(rows, save)
    for name in ("plan", "note"):
        assert "numbers with a unit, like '" in plan.left_out[name]


def test_a_window_is_longer_where_partitions_are_small(save: Save) -> None:
    day = [date(2025, 1, 1) + timedelta(days=number // 30) for number in range(6000)]
    few = customers(6000).with_columns(day=pl.Series(day))
    windows = proposed(few, save).windows
    assert (windows.window, windows.wider, windows.holdout) == (120, 160, 30)


# What cannot be handled


@pytest.mark.parametrize(
    ("change", "asked", "said"),
    [
        (lambda rows: rows.clear(), {}, ["has no rows"]),
        (lambda rows: rows, {"target": "gone"}, ["no column 'gone'", "customer_id, day"]),
        (lambda rows: rows, {"time": "gone"}, ["no column 'gone'"]),
        (
            lambda rows: rows,
            {"key": ("day", "left")},
            ["'left' is the target", "--key and --group"],
        ),
        (lambda rows: rows.with_columns(left=pl.lit("no")), {}, ["only 'no'", "another column"]),
        (lambda rows: rows.with_columns(left=pl.lit(None)), {}, ["no column 'left'"]),
        (lambda rows: rows.head(60), {"cadence": "day"}, ["'day' has 2 day(s)", "--cadence none"]),
        (
            lambda rows: rows,
            {"time": "plan"},
            ["--time plan: it holds text", "no date or time is '", "2026-11-27"],
        ),
        (lambda rows: rows, {"target": "day"}, ["is a time"]),
        (lambda rows: rows, {"target": "note"}, ["600 different values", "group them"]),
        (lambda rows: rows, {"problem": "regression"}, ["is String, not a number"]),
        (
            lambda rows: rows.with_columns(tags=pl.concat_list("plan", "note")),
            {},
            ["column 'tags' holds List(String)", "--ignore 'tags'"],
        ),
        (
            lambda rows: rows.with_columns(
                age=pl.when(pl.int_range(600) == 7).then(pl.lit("old")).otherwise(pl.col("age"))
            ),
            {},
            ["column 'age' mixes numbers with text like 'old'", "--ignore 'age'"],
        ),
        (lambda rows: rows.select("note", "country", "left"), {}, ["no column is left to learn"]),
    ],
)
def test_a_table_that_cannot_be_handled_is_a_sentence(
    save: Save,
    change: Callable[[pl.DataFrame], pl.DataFrame],
    asked: dict[str, Any],
    said: list[str],
) -> None:
    with pytest.raises(BadInput) as caught:
        proposed(change(customers()), save, **asked)
    assert [text for text in said if text not in f"{caught.value}"] == []


def test_a_file_that_is_none_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"no Parquet at all")
    (tmp_path / "page.html").touch()
    (tmp_path / "empty.csv").touch()
    (tmp_path / "shop.db").touch()
    (tmp_path / "folder").mkdir()
    said = {
        "bad.parquet": "cannot be read",
        "page.html": "ends in none of",
        "empty.csv": "cannot be read|has no rows",
        "folder": "holds no table",
        "gone.csv": "is not a file",
        "shop.db": "is a database: name it as sqlite:///.*shop.db --table NAME",
        "x-{partition}.csv": "no file matches",
    }
    for name, sentence in said.items():
        with pytest.raises(BadInput, match=sentence):
            look(f"{tmp_path / name}")
    with pytest.raises(BadInput, match="add --table NAME"):
        look("postgresql://host/shop")


# What is written


def _files(table: Table, plan: Plan) -> dict[str, str]:
    return write(table, plan, sandbox.CHECKOUT)


ODD = {
    "customer_id": 'the "id"',
    "age": "Alter (Jahre)",
    "income": "großes\nEinkommen",
    "plan": "class",
    "is_new": "x" * 120,
    "day": "Datum",
    "left": "kündigt?",
}
TABLES: dict[str, tuple[Any, ...]] = {
    "daily": (customers(), "left"),
    "lags": (customers(), "age", {"lags": (7, 1)}),
    "odd": (customers().rename(ODD), "kündigt?"),
    "snapshot": (customers().drop("day", "customer_id", "note"), "plan"),
    "regression": (customers(), "income"),
    "hourly": (
        customers().with_columns(
            day=pl.datetime(2026, 1, 1, time_zone="UTC") + pl.duration(minutes=pl.int_range(600))
        ),
        "age",
    ),
    "words only": (customers().select("plan", "left"), "left"),
    "numbers only": (customers().select("age", "income"), "income"),
}

# Reads a written domain through the one door, and uses it; prints where it lies and the rows.
USE = """
import sys
from pathlib import Path
import polars as pl
from flight_delays import interface
from flight_delays.core.context import Context
interface.check_domain()
schema, features = interface.load_schema(), interface.load_features()
rows = pl.read_parquet(sys.argv[1]).select(list(schema.contract.columns))
made = features.of(schema.contract.validate(rows, lazy=True), Context.of(rows, [rows]))
assert not made.select(interface.load_problem().target().alias("target")).is_empty()
matrix = features.encoder().fit_transform(made.select(features.names).to_pandas())
print(Path(interface.__file__).parents[2], matrix.shape[0])
"""


@pytest.mark.parametrize("name", TABLES)
def test_what_is_written_is_clean_typed_and_complete(
    save: Save, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    frame, target, *more = TABLES[name]
    table = look(save(frame))
    plan = infer(table, Asked(target, **dict(*more)))
    files = _files(table, plan)
    root = tmp_path / "written"
    for folder in ("src", "config"):
        shutil.copytree(sandbox.CHECKOUT / folder, root / folder)
    shutil.copy(sandbox.CHECKOUT / "pyproject.toml", root)
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    # test_problem.py is run and checked by tests/foreign/test_onboard.py.
    code = [path for path in files if path.endswith(".py") and "test_problem" not in path]
    commands = [["ruff", "check"], ["ruff", "format", "--check"]]
    # Slow, and the same for most.
    cache = f"--cache-dir={tmp_path_factory.getbasetemp() / 'mypy'}"
    commands += [["mypy", cache]] if name in ("odd", "lags", "regression") else []
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", *command, *code],
            cwd=root,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    for part in sample_frames(table, plan, []).values():
        part.write_parquet(root / "rows.parquet")
    done = subprocess.run(
        [sys.executable, "-c", USE, "rows.parquet"],
        cwd=root,
        check=False,
        env={"PYTHONPATH": f"{root / 'src'}", "PIPELINE_HOME": f"{root}", "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [f"{root}", f"{table.rows}"], done.stderr


@pytest.mark.parametrize(
    ("cadence", "begins", "every"),
    [
        ("hour", ("UTC", "monday"), timedelta(minutes=20)),
        ("day", ("Europe/Berlin", "monday"), timedelta(hours=3)),
        ("week", ("Europe/Berlin", "sunday"), timedelta(hours=11)),
        ("month", ("UTC", "monday"), timedelta(days=2)),
    ],
)
def test_a_lag_is_the_target_so_many_partitions_before(
    project: Path, save: Save, cadence: Any, begins: tuple[str, str], every: timedelta
) -> None:
    variables = {"DATA__CADENCE": cadence, "DATA__FILE": "{partition}.csv"}
    variables |= dict(zip(("DATA__TIME_ZONE", "DATA__WEEK_START"), begins, strict=True))
    with sandbox.enter(project, variables):
        cut = load_settings().data.cadence
        first = datetime(2026, 1, 1, tzinfo=UTC)
        times = [first + number * every for number in range(300)]
        rows = pl.DataFrame({"at": times, "shop": ["a", "b"] * 150, "x": range(300)})
        names = cut.names(cut.clock(pl.col("at"), rows.schema["at"]))
        rows = rows.with_columns(y=names.rank("dense").cast(pl.Float64), x=pl.col("x") % 7)
        table = look(save(rows))
        plan = infer(table, Asked("y", "at", ("at", "shop"), cadence=cadence, lags=(1, 2)))
        text = _files(table, plan)[f"{DOMAIN}/features.py"].replace(
            "from ..", "from flight_delays."
        )
        made: dict[str, Any] = {}
        exec(text, made)
        found = made["features"](rows, Context.of(rows, [rows]))

    assert plan.series == ("shop",)
    for lag in (1, 2):
        known = found.drop_nulls(f"y_{lag}_before")
        assert known.height == rows.filter(pl.col("y") > lag).height > 100
        assert (known["y"] - known[f"y_{lag}_before"]).unique().to_list() == [lag]


def test_a_key_that_names_rows_has_no_history(save: Save) -> None:
    plan = proposed(customers(), save, target="age", lags=(1,))

    assert (plan.key, plan.series) == (("customer_id",), ())
    assert "of all rows together" in plan.reasons["lags"]


def test_settings_keep_what_is_not_of_the_table() -> None:
    text = (
        '# Ours.\n[project]\nowner = "us"   # really\n\n[gates]\nmin_improvement = 0.1\n'
        "# min_above_baseline = 0.5   # a guess\n\n[gates.metrics.old]\nmin = 1\n\n[training]\n"
        'window = 7             # days, "x"\ncandidates = ["a", "b"]   # two\n'
    )
    values: dict[str, dict[str, Any]] = {
        "training": {"window": 3, "split": "group"},
        "data.csv": {"separator": "#"},
    }
    changed = set_values(text, {**values, "gates": {"min_above_baseline": 0.0}})

    assert tomllib.loads(changed) == {
        "project": {"owner": "us"},
        "gates": {"min_improvement": 0.1, "min_above_baseline": 0.0},
        "training": {"window": 3, "candidates": ["a", "b"], "split": "group"},
        "data": {"csv": {"separator": "#"}},
    }
    for comment in ("# Ours.", "# really", '# days, "x"', "# two", "# a guess"):
        assert comment in changed


def test_a_large_table_stays_where_it_is_and_its_newest_rows_are_the_sample(
    save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flight_delays.cli.onboard.look.SAMPLE_ROWS", 200)
    monkeypatch.setattr("flight_delays.cli.onboard.write.SAMPLE_ROWS", 50)
    address = save(customers())
    table = look(address)
    plan = infer(table, Asked("left"))
    (sample,) = sample_frames(table, plan, []).values()

    data = tomllib.loads(_files(table, plan)["config/pipeline.toml"])["data"]
    assert (data["kind"], data["source"], data["cadence"]) == ("table", address, "day")
    assert sample.height == 50
    assert sample.filter(pl.col("day") < date(2026, 1, 19)).is_empty()


def test_a_large_file_that_the_pipeline_cannot_read_is_refused_before_anything_is_written(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flight_delays.cli.onboard.look.SAMPLE_ROWS", 200)
    customers().write_csv(tmp_path / "table.tsv", separator="\t")
    before = contents(fresh)

    assert "table.tsv' is read where it is" in refused(f"{tmp_path}/table.tsv", "--target", "left")
    assert contents(fresh) == before


def test_the_next_table_has_nothing_of_the_one_before(fresh: Path, save: Save) -> None:
    address = save(customers())
    (fresh / ".env").write_text("OURS=1\nPIPELINE_DATA__SOURCE=postgresql://me:secret@host/shop\n")
    assert onboard(address, "--target", "left", "--group", "plan").exit_code == 0
    assert (
        tomllib.loads((fresh / "config/pipeline.toml").read_text())["training"]["split"] == "group"
    )
    assert onboard(address, "--target", "left").exit_code == 0

    assert (
        tomllib.loads((fresh / "config/pipeline.toml").read_text())["training"]["split"] == "time"
    )
    assert (fresh / ".env").read_text() == "OURS=1\n"


def test_files_of_partitions_stay_files(tmp_path: Path) -> None:
    for day, rows in customers().group_by("day"):
        rows.write_csv(tmp_path / f"export-{day[0]}.csv", separator=";")
    table = look(f"{tmp_path}/export-{{partition}}.csv")
    plan = infer(table, Asked("left"))

    assert (plan.cadence.unit, plan.time) == ("day", "day")
    assert len(sample_frames(table, plan, [])) == 20
    data = tomllib.loads(_files(table, plan)["config/pipeline.toml"])["data"]
    assert (data["kind"], data["source"]) == ("files", "data/sample")


def test_masked_values_are_not_in_the_sample_and_a_key_stays_one(save: Save) -> None:
    table = look(save(customers()))
    plan = infer(table, Asked("left", key=("note",)))
    (sample,) = sample_frames(table, plan, ["note", "age"]).values()

    assert set(sample["note"]) & set(table.sample["note"]) == set()
    assert sample["note"].n_unique() == 600
    assert sorted(sample["age"]) == sorted(table.sample["age"])
    written = "".join(write(table, plan, sandbox.CHECKOUT, ["plan", "age"]).values())
    assert '"basic"' in "".join(_files(table, plan).values())
    assert '"basic"' not in written
    assert f"{table.columns['age'].high}" not in written
    assert sample["age"].to_list() != table.sample["age"].to_list()


# The command


def test_a_fresh_project_is_onboarded_and_its_old_files_are_kept(fresh: Path, save: Save) -> None:
    before = contents(fresh)
    done = onboard(save(customers()), "--target", "left")

    assert done.exit_code == 0, done.output
    assert "left: classification" in done.stdout
    assert "uv run poe test" in done.stdout
    assert "New rows go into data/sample, in its file or in another beside it, or" in done.stdout
    after = contents(fresh)
    assert b'LABEL = "left"' in after[f"{DOMAIN}/schema.py"]
    assert {path for path in after if path.startswith("data/")} == {
        "data/README.md",
        "data/sample/rows.parquet",
    }
    (kept,) = (fresh / "var/onboard").glob("before-*")
    assert (kept / DOMAIN / "schema.py").read_bytes() == before[f"{DOMAIN}/schema.py"]
    assert len(list((kept / "data/sample").iterdir())) > 30
    page = (fresh / "var/onboard/profile.html").read_text()
    for text in ("customer_id", "<svg", "constant", "id-like", "20 days in a row"):
        assert text in page


def test_a_page_shows_no_markup_of_the_table(fresh: Path, save: Save) -> None:
    frame = customers().rename({"plan": "<script>alert(1)</script>"})
    assert onboard(save(frame), "--target", "left").exit_code == 0

    assert "<script>" not in (fresh / "var/onboard/profile.html").read_text()


def test_a_dry_run_shows_the_files_and_writes_none(fresh: Path, save: Save) -> None:
    before = contents(fresh)
    done = onboard(save(customers()), "--target", "left", "--dry-run")

    assert done.exit_code == 0
    for text in (f"{DOMAIN}/schema.py", 'LABEL = "left"', "config/pipeline.toml", "window ="):
        assert text in done.stdout
    assert contents(fresh) == before
    assert not (fresh / "var/onboard").exists()


def test_again_is_fine_until_a_file_was_edited(fresh: Path, save: Save) -> None:
    address = save(customers())
    assert onboard(address, "--target", "left").exit_code == 0
    assert onboard(address, "--target", "plan").exit_code == 0
    schema = fresh / DOMAIN / "schema.py"
    schema.write_text(schema.read_text() + "# Mine.\n")
    before = contents(fresh)

    said = refused(address, "--target", "left")

    assert said.startswith(f"{DOMAIN}/schema.py may hold work of yours")
    assert "--force" in said
    assert contents(fresh) == before
    assert onboard(address, "--target", "left", "--force").exit_code == 0
    kept = max((fresh / "var/onboard").glob("before-*"))
    assert "# Mine." in (kept / DOMAIN / "schema.py").read_text()
    assert 'LABEL = "left"' in schema.read_text()


@pytest.mark.parametrize("path", ["config/pipeline.toml", "data/sample/more.parquet"])
def test_edited_settings_and_a_changed_sample_are_not_replaced(
    fresh: Path, save: Save, path: str
) -> None:
    address = save(customers())
    assert onboard(address, "--target", "left").exit_code == 0
    if path.endswith(".toml"):
        text = (fresh / path).read_text()
        (fresh / path).write_text(text.replace("holdout = 3", "holdout = 4"))
    else:
        (fresh / path).touch()

    assert path.removesuffix("/more.parquet") in refused(address, "--target", "plan")


def test_a_contract_of_the_teams_own_is_not_replaced(fresh: Path, save: Save) -> None:
    schema = fresh / DOMAIN / "schema.py"
    schema.write_text('"""Ours."""\n\nLABEL = "x"\n')

    assert f"{DOMAIN}/schema.py" in refused(save(customers()), "--target", "left")
    assert schema.read_text().startswith('"""Ours."""')


def test_the_closing_lines_name_the_next_file(fresh: Path, tmp_path: Path) -> None:
    for day, rows in customers().group_by("day"):
        rows.write_csv(tmp_path / f"export-{day[0]}.csv")
    done = onboard(f"{tmp_path}/export-{{partition}}.csv", "--target", "left")
    assert "into data/sample, one file for each day: next 2026-01-21.parquet" in done.stdout


def test_a_file_of_a_database_is_found_from_anywhere(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    customers().write_database("orders", f"sqlite:///{tmp_path / 'shop.db'}", engine="sqlalchemy")
    monkeypatch.chdir(tmp_path)
    assert onboard("sqlite:///shop.db", "--table", "orders", "--target", "left").exit_code == 0
    source = tomllib.loads((fresh / "config/pipeline.toml").read_text())["data"]["source"]
    assert source == f"sqlite:///{tmp_path / 'shop.db'}"


@pytest.mark.parametrize("kind", ["table", "files"])
def test_rows_that_come_later_turn_no_test_red(fresh: Path, tmp_path: Path, kind: str) -> None:
    address = f"{tmp_path}/table.parquet"
    customers().write_parquet(address)
    if kind == "files":
        address = f"{tmp_path}/on-{{partition}}.parquet"
        for (day,), part in customers().partition_by("day", as_dict=True).items():
            part.write_parquet(tmp_path / f"on-{day}.parquet")
    assert onboard(address, "--target", "left").exit_code == 0
    pl.DataFrame({"age": ["bad"]}).write_parquet(fresh / "data/sample/2026-02-01.parquet")

    code = "import sample; print(sample.rows().height)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=fresh / "tests" / "domain",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "600\n"


def test_what_git_knows_to_be_changed_is_not_replaced(fresh: Path, save: Save) -> None:
    git = ["git", "-C", f"{fresh}", "-c", "user.name=a", "-c", "user.email=a@example.com"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "Generate"]):
        subprocess.run([*git, *command], check=True)
    test = fresh / "tests/domain/test_schema.py"
    test.write_text(test.read_text() + "\n# Mine.\n")
    said = refused(save(customers()), "--target", "left")
    assert said.startswith("tests/domain/test_schema.py may hold")

    subprocess.run([*git, "commit", "-qam", "Mine"], check=True)
    assert "tests/domain/test_schema.py" in refused(save(customers()), "--target", "left")


def test_a_missing_target_is_a_sentence_with_the_columns(fresh: Path, save: Save) -> None:
    assert "--target COLUMN is missing; there are: customer_id, day" in refused(save(customers()))


def test_help_shows_examples(project: Path) -> None:
    done = onboard("--help")
    assert done.exit_code == 0
    assert "onboard customers.csv --target churned" in done.stdout


def test_a_record_of_digests_is_kept(fresh: Path, save: Save) -> None:
    onboard(save(customers()), "--target", "left")
    record = json.loads((fresh / "var/onboard/written.json").read_text())
    assert {f"{DOMAIN}/problem.py", "config/pipeline.toml", "data/sample"} <= record.keys()


@pytest.mark.parametrize("outcome", ["another", "the same", "none"])
def test_a_champion_of_another_table_is_taken_back_unless_it_is_champion_again(
    tracked: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    outcome: str,
) -> None:
    """A service that runs would go on with one that has only lost its title."""
    client, name = tracking.client(), registry.model_name()
    client.create_registered_model(name)
    for _ in range(2):
        client.create_model_version(name, f"{tracked}")
    registry.promote(1)

    def execute(*_: Any) -> Any:
        assert registry.versions() == (None, None)
        if outcome == "none":
            raise BadInput("too few rows")
        registry.promote(2 if outcome == "another" else 1)
        return SimpleNamespace(key="k")

    monkeypatch.setattr(pipeline, "execute", execute)
    with nullcontext() if outcome != "none" else pytest.raises(BadInput):
        _train()
    said = " ".join(capsys.readouterr().out.split())
    assert "Version 1, champion until now, loses the title" in said
    assert "champion promote 1 --force` makes it champion again" in said
    champion = {"another": 2, "the same": 1, "none": None}[outcome]
    assert registry.versions()[0] == champion
    assert registry.is_withdrawn(1) is (champion != 1)
    assert sandbox.registry().versions == [1, 2]
