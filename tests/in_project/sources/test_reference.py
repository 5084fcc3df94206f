"""Reference tables: read once a content, and named when they cannot be."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import sandbox
from flight_delays.core.errors import SettingsError
from flight_delays.core.settings import load_settings
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
