"""A query as a source: a database's rows come out as they went in, cut by the bounds.

Needs `uv run --with duckdb-engine --with "psycopg[binary]"`, and the address of an empty PostgreSQL
database in $TEST_POSTGRES.
"""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import sandbox
import sqlalchemy as sa
from flight_delays import pipeline
from flight_delays.core import storage
from flight_delays.core.errors import MissingPartitions, SettingsError
from flight_delays.core.settings import load_settings
from flight_delays.sources import open_source
from sandbox import Trained

DAYS = [sandbox.day(-back) for back in reversed(range(5))]
QUERY = "SELECT * FROM flights WHERE date >= :start AND date < :end"


def address(kind: str, folder: Path) -> str:
    """Return the address of a database."""
    if kind == "postgresql":
        return os.environ["TEST_POSTGRES"]
    return f"{kind}:///{folder / 'rows.db'}"


def fill(database: str, table: str, rows: pl.DataFrame) -> None:
    """Write rows to a table as a program would that knows the database."""
    engine = sa.create_engine(database)
    types: dict[str, Any] = {}
    for name, dtype in rows.schema.items():
        if dtype == pl.Date:
            types[name] = sa.Date()
        elif dtype == pl.Datetime:
            types[name] = sa.DateTime(timezone=bool(getattr(dtype, "time_zone", None)))
        else:
            types[name] = sa.Integer() if dtype.is_integer() else sa.Float()
            if dtype == pl.String:
                types[name] = sa.String()
    made = sa.Table(table, sa.MetaData(), *(sa.Column(*one) for one in types.items()))
    with engine.begin() as connection:
        made.drop(connection, checkfirst=True)
        made.create(connection)
        connection.execute(made.insert(), rows.to_dicts())
    engine.dispose()


@pytest.fixture(params=["sqlite", "duckdb", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of a database with five days of the example."""
    found = address(request.param, tmp_path)
    fill(found, "flights", pl.concat([sandbox.sample(day) for day in DAYS]))
    return found


def variables(database: str, query: str = QUERY, cadence: str = "day") -> dict[str, str]:
    """Return what makes a query the source."""
    return {
        "DATA__KIND": "sql",
        "DATA__SOURCE": database,
        "DATA__QUERY": query,
        "DATA__CADENCE": cadence,
    }


def rows_of(partition: str) -> pl.DataFrame:
    """Return the rows of a partition's copy, which is the same file again."""
    source = open_source(load_settings())
    path = source.snapshot(partition, storage.artifact_path("raw"))
    assert source.snapshot(partition, storage.artifact_path("raw")) == path
    return storage.read_parquet(str(path))


def test_days_of_a_table_are_partitions(project: Path, database: str) -> None:
    with sandbox.enter(project, variables(database)):
        source = open_source(load_settings())
        assert source.list_partitions() == DAYS
        assert [rows_of(day).height for day in DAYS] == [sandbox.sample(d).height for d in DAYS]
        with pytest.raises(MissingPartitions, match="no rows of partition 2012-01-01"):
            rows_of("2012-01-01")


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_project_trains_on_a_database(trained: Trained, database: str) -> None:
    with sandbox.enter(trained.root, sandbox.SMALL | variables(database)):
        run = pipeline.execute("training", DAYS[-1])
        from_database = sandbox.result(run, "train-linear")
    with sandbox.enter(trained.root, sandbox.SMALL):
        from_files = sandbox.result(pipeline.execute("training", DAYS[-1]), "train-linear")
    assert from_database["score"] == pytest.approx(from_files["score"], abs=0.02)


@pytest.mark.parametrize(
    ("kind", "zoned"),
    # SQLite has no times with a zone.
    [
        *(("sqlite", False), ("duckdb", False), ("postgresql", False)),
        *(("duckdb", True), ("postgresql", True)),
    ],
)
def test_hours_and_days_are_those_of_the_zone(
    project: Path, tmp_path: Path, kind: str, zoned: bool
) -> None:
    found = address(kind, tmp_path)
    # By half hours from midnight in Berlin, where the clocks are put back that night.
    begin = datetime(2024, 10, 26, 22, tzinfo=UTC)
    times = pl.Series("date", [begin + timedelta(minutes=30 * step) for step in range(98)])
    if not zoned:
        times = times.dt.convert_time_zone("Europe/Berlin").dt.replace_time_zone(None)
    fill(found, "moments", pl.DataFrame([times, pl.Series("n", range(98))]))
    query = "SELECT * FROM moments WHERE date >= :start AND date < :end ORDER BY n"
    berlin = {"DATA__TIME_ZONE": "Europe/Berlin"}
    with sandbox.enter(project, variables(found, query) | berlin):
        assert open_source(load_settings()).list_partitions() == ["2024-10-27", "2024-10-28"]
        assert rows_of("2024-10-27")["n"].to_list() == list(range(50))
        assert rows_of("2024-10-28").height == 48
    with sandbox.enter(project, variables(found, query, "hour") | berlin):
        hours = open_source(load_settings()).list_partitions()
        assert hours[:2] == ["2024-10-26T22", "2024-10-26T23"]
        if zoned:
            assert len(hours) == 49
            assert [rows_of(hour)["n"].to_list() for hour in hours[:4]] == [
                [2 * hour, 2 * hour + 1] for hour in range(4)
            ]


@pytest.mark.parametrize("database", ["duckdb", "postgresql"], indirect=True)
def test_what_polars_has_no_type_for_is_text(project: Path, database: str) -> None:
    uuid = "6b3a55e0-261b-4304-ab9e-4eb6e2a1e6ef"
    query = QUERY.replace("*", f"date, CAST('{uuid}' AS UUID) AS id")
    with sandbox.enter(project, variables(database, query)):
        assert rows_of(DAYS[0])["id"].unique().to_list() == [uuid]


@pytest.mark.parametrize("form", ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M"])
def test_hours_of_sqlite_are_found_however_its_text_spells_them(
    project: Path,
    tmp_path: Path,
    form: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    contract = SimpleNamespace(types={"date": pl.Datetime("us")})
    monkeypatch.setattr("flight_delays.sources.cut.load_schema", lambda: contract)
    found = address("sqlite", tmp_path)
    begin = datetime(2024, 10, 26, 22)
    times = [f"{begin + timedelta(minutes=30 * step):{form}}" for step in range(8)]
    fill(found, "moments", pl.DataFrame({"date": [*times, "26.10.2024 22:10"], "n": range(9)}))
    query = "SELECT * FROM moments WHERE date >= :start AND date < :end ORDER BY n"
    with sandbox.enter(project, variables(found, query, "hour")):
        hours = open_source(load_settings()).list_partitions()
        assert hours == [f"2024-10-2{rest}" for rest in ("6T22", "6T23", "7T00", "7T01")]
        assert [rows_of(hour)["n"].to_list() for hour in hours] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert "1 rows of the query are of no partition: their date cannot be read" in caplog.text


def test_a_snapshot_needs_no_bounds(project: Path, tmp_path: Path) -> None:
    found = address("sqlite", tmp_path)
    fill(found, "flights", sandbox.sample())
    with sandbox.enter(project, variables(found, "SELECT * FROM flights;", "none")):
        assert open_source(load_settings()).list_partitions() == ["all"]
        assert rows_of("all").height == sandbox.sample().height


def test_what_has_not_ended_yet_is_no_partition(project: Path, tmp_path: Path) -> None:
    found = address("sqlite", tmp_path)
    today = datetime.now(UTC).date()
    fill(found, "flights", pl.DataFrame({"date": [today - timedelta(days=1), today]}))
    with sandbox.enter(project, variables(found)):
        assert open_source(load_settings()).list_partitions() == [f"{today - timedelta(days=1)}"]


def test_a_query_without_bounds_is_refused(project: Path) -> None:
    with (
        sandbox.enter(project, variables("sqlite:///x.db", "SELECT * FROM flights")),
        pytest.raises(SettingsError, match=r"data\.query: .* no :start or :end in it"),
    ):
        load_settings()


SECRET = "s3cr3t/pass"
WRONG: dict[str, tuple[str, type[Exception], str]] = {
    "no server": (
        f"mysql+nothing://me:{SECRET}@127.0.0.1/db",
        SettingsError,
        r"no driver for 'mysql\+nothing://me:\*\*\*@127.0.0.1/db' is installed .* `uv add",
    ),
    "no address": ("data/sample", SettingsError, "'data/sample' is not an address of SQLAlchemy's"),
    "no database": ("sqlite:///nowhere.db", SettingsError, "there is no database at .*nowhere.db"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_address_is_named_without_its_password(
    project: Path, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    wrong, error, sentence = WRONG[case]
    caplog.set_level(logging.DEBUG)
    with sandbox.enter(project, variables(wrong)), pytest.raises(error, match=sentence) as caught:
        open_source(load_settings()).list_partitions()
    assert SECRET not in f"{caught.value!r}{caught.value.__cause__!r}{caplog.text}"


def test_a_failing_query_says_what_the_database_says(project: Path, tmp_path: Path) -> None:
    found = address("sqlite", tmp_path)
    fill(found, "others", pl.DataFrame({"n": [1]}))
    with (
        sandbox.enter(project, variables(found)),
        pytest.raises(sa.exc.SQLAlchemyError, match="no such table: flights"),
    ):
        open_source(load_settings()).list_partitions()


def test_bad_settings_do_not_show_the_password(project: Path) -> None:
    wrong = variables(f"postgresql://me:{SECRET}@host/db") | {"DATA__UNKNOWN": "1"}
    wrong |= {"DATA__KIND": "nothing", "DATA__FILE": "x"}
    with sandbox.enter(project, wrong), pytest.raises(SettingsError) as caught:
        load_settings()
    assert SECRET not in f"{caught.value!r}"
