"""Reference tables: read once a content, and named when they cannot be.

Needs `uv run --with deltalake`.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import polars as pl
import pytest
import sandbox
import sqlalchemy as sa
from flight_delays.core.errors import SettingsError
from flight_delays.core.settings import load_settings
from flight_delays.interface import load_schema
from flight_delays.sources.reference import (
    load_labels,
    load_references,
    reference_fingerprint,
)
from upath import UPath

VARIABLES = {"DATA__REFERENCE": '{"airports": {"source": "data/airports.csv"}}'}


def test_a_table_is_read_again_only_when_its_content_changes(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file = project / "data" / "airports.csv"
    file.write_text("code,height\nEWR,5.5\n")
    with sandbox.enter(project, VARIABLES):
        settings = load_settings()
        before, first = load_references(settings), reference_fingerprint(settings)
        assert before["airports"].rows() == [("EWR", 5.5)]
        assert load_references(settings)["airports"] is before["airports"]
        file.write_text("code,height\nEWR,6.5\n")
        assert load_references(settings)["airports"].rows() == [("EWR", 6.5)]
        assert reference_fingerprint(settings) != first
    said = [line for line in caplog.messages if "reference table 'airports': 1 rows" in line]
    assert len(said) == 2


@pytest.mark.parametrize("content", [None, b"PAR1", b""])
def test_a_table_that_cannot_be_read_is_named(project: Path, content: bytes | None) -> None:
    variables = {"DATA__REFERENCE": '{"airports": {"source": "data/airports.parquet"}}'}
    if content is not None:
        (project / "data" / "airports.parquet").write_bytes(content)
    with (
        sandbox.enter(project, variables),
        pytest.raises(SettingsError, match=r"reference table 'airports' at .*airports\.parquet: "),
    ):
        load_references(load_settings())


@pytest.mark.parametrize(
    ("source", "own", "opened_with"),
    [
        ("memory://tables/a.csv", {}, {"key": "of the data"}),
        ("memory://tables/a.csv", {"key": "its own"}, {"key": "its own"}),
        ("a.csv", {}, {}),
    ],
)
def test_further_tables_are_opened_with_storage_options(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    own: dict[str, str],
    opened_with: dict[str, str],
) -> None:
    opened = []

    def read(path: UPath) -> bytes:
        opened.append(dict(path.storage_options))
        return b"code,height\nEWR,5.5\n"

    table = json.dumps({"source": source, "storage_options": own})
    variables = {
        "DATA__SOURCE": "memory://rows",
        "DATA__STORAGE_OPTIONS": '{"key": "of the data"}',
        "DATA__REFERENCE": f'{{"airports": {table}}}',
        "DATA__LABELS": table,
    }
    with sandbox.enter(project, variables):
        for kind in {type(UPath("memory://x")), type(UPath("/x"))}:
            monkeypatch.setattr(kind, "read_bytes", read)
        load_references(load_settings())
        with pytest.raises(SettingsError, match=r"the labels at .* have no column"):
            load_labels(load_settings())
    assert opened == [opened_with] * 2


def test_a_project_without_any_has_none(project: Path) -> None:
    with sandbox.enter(project):
        assert load_references(load_settings()) == {}


def test_tables_come_from_a_database(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    database = f"sqlite:///{project / 'tables.db'}"
    engine = sa.create_engine(database)
    query = "SELECT code, height FROM airports WHERE height > 5"
    table = {"kind": "sql", "source": "sqlite:///tables.db", "query": query}
    variables = {"DATA__REFERENCE": json.dumps({"airports": table})}
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE airports (code TEXT, height REAL)"))
        connection.execute(sa.text("INSERT INTO airports VALUES ('LGA', 6.5), ('EWR', 5.5)"))
    with sandbox.enter(project, variables):
        settings = load_settings()
        first = reference_fingerprint(settings)
        rows = load_references(settings)["airports"]
        assert rows.rows() == [("EWR", 5.5), ("LGA", 6.5)]
        assert load_references(settings)["airports"] is rows
        with engine.begin() as connection:
            connection.execute(sa.text("UPDATE airports SET height = 7.5 WHERE code = 'EWR'"))
        assert load_references(settings)["airports"]["height"].to_list() == [7.5, 6.5]
        assert reference_fingerprint(settings) != first
    engine.dispose()


def test_tables_come_from_delta(project: Path) -> None:
    place = f"{project / 'data' / 'airports'}"
    pl.DataFrame({"code": ["EWR"], "height": [5.5]}).write_delta(place)
    table = {"airports": {"kind": "delta", "source": "data/airports"}}
    with sandbox.enter(project, {"DATA__REFERENCE": json.dumps(table)}):
        settings = load_settings()
        first = reference_fingerprint(settings)
        assert load_references(settings)["airports"].rows() == [("EWR", 5.5)]
        pl.DataFrame({"code": ["LGA"], "height": [6.5]}).write_delta(place, mode="append")
        assert load_references(settings)["airports"].height == 2
        assert reference_fingerprint(settings) != first


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"kind": "sql", "source": "sqlite:///no.db", "query": "SELECT 1"}, "no database at /.*no"),
        ({"kind": "sql", "source": "data", "query": "SELECT 1"}, "'data' is not an address of SQL"),
        ({"kind": "delta", "source": "data/none"}, "at data/none: there is no Delta table"),
        ({"kind": "sql", "source": "sqlite:///no.db"}, 'kind = "sql" needs a query'),
        ({"source": "data/a.csv", "query": "SELECT 1"}, "only that kind has one"),
    ],
)
def test_a_table_that_is_not_there_is_named(
    project: Path, table: dict[str, str], sentence: str
) -> None:
    variables = {"DATA__REFERENCE": json.dumps({"airports": table})}
    with sandbox.enter(project, variables), pytest.raises(SettingsError, match=sentence):
        load_references(load_settings())


def test_labels_come_from_a_database_that_fills_up(project: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{project / 'labels.db'}")
    rows = sandbox.sample(sandbox.day(0))
    with sandbox.enter(project):
        schema = load_schema()
    rows.select(*schema.key, schema.label).drop_nulls().write_database("labels", engine)
    table = {
        "kind": "sql",
        "source": "sqlite:///labels.db",
        "query": "SELECT * FROM labels",
    }
    with sandbox.enter(project, {"DATA__LABELS": json.dumps(table)}):
        labels = load_labels(load_settings())
    assert labels is not None
    assert dict(labels.rows.schema) == {n: schema.types[n] for n in (*schema.key, schema.label)}
    assert labels.rows.height == rows.drop_nulls(schema.label).height
    engine.dispose()
