"""Rows from the team's own two functions in domain/source.py."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
import sandbox
from flight_delays.core import storage
from flight_delays.core.errors import BadInput, DomainError, MissingPartitions
from flight_delays.core.settings import load_settings
from flight_delays.interface import load_rows
from flight_delays.sources import open_source

GOOD = """
import polars as pl
def partitions(): return ["2026-01-02", "2026-01-01"]
def read(partition): return pl.LazyFrame({"day": [partition]})
"""


@pytest.fixture
def write(
    tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], None]]:
    """Return a function that writes source.py of the domain."""
    folder = tmp_path / "own_rows"
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(text: str) -> None:
        folder.mkdir()
        (folder / "__init__.py").touch()
        (folder / "source.py").write_text(text)

    with sandbox.enter(project, {"DATA__KIND": "python"}):
        monkeypatch.setenv("PIPELINE_DOMAIN", folder.name)
        yield write
    load_rows.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == folder.name]:
        del sys.modules[name]


def snapshot(partition: str) -> pl.DataFrame:
    """Return the rows of a partition's copy."""
    path = open_source(load_settings()).snapshot(partition, storage.artifact_path("raw"))
    return storage.read_parquet(str(path))


def take_newest() -> None:
    """List the partitions and take the newest."""
    snapshot(open_source(load_settings()).list_partitions()[-1])


def test_partitions_and_rows_are_what_the_functions_return(write: Callable[[str], None]) -> None:
    write(GOOD)
    assert open_source(load_settings()).list_partitions() == ["2026-01-01", "2026-01-02"]
    assert snapshot("2026-01-02").rows() == [("2026-01-02",)]


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        (("def read", "def reed"), DomainError, "domain/source.py is not complete:\n  read"),
        (("pl.LazyFrame", "dict"), DomainError, r"read\('2026-01-02'\) returned a dict"),
        (("[partition]", "[]"), MissingPartitions, r"read\('2026-01-02'\) returned no rows"),
        (("2026-01-01", "1/1"), BadInput, "partition '1/1' is not a day like"),
    ],
)
def test_what_they_return_otherwise_is_named(
    write: Callable[[str], None],
    change: tuple[str, str],
    error: type[Exception],
    sentence: str,
) -> None:
    write(GOOD.replace(*change))
    with pytest.raises(error, match=sentence):
        take_newest()
