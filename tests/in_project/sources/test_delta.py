"""A Delta table as a source, read at the version that is there when it is opened."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import polars as pl
import pytest
import sandbox
from flight_delays.core import storage
from flight_delays.core.errors import SettingsError
from flight_delays.core.settings import load_settings
from flight_delays.sources import open_source

DAYS = [sandbox.day(-back) for back in (2, 1, 0)]


def test_a_source_stays_at_its_version(
    project: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    address = str(tmp_path / "table")
    with sandbox.enter(project, {"DATA__KIND": "delta", "DATA__SOURCE": address}):
        assert open_source(load_settings()).list_partitions() == []
        for day in DAYS[:2]:
            sandbox.sample(day).write_delta(address, mode="append")
        opened = open_source(load_settings())
        assert opened.list_partitions() == DAYS[:2]
        assert "version 1 of the Delta table" in caplog.messages[-1]
        sandbox.sample(DAYS[2]).write_delta(address, mode="append")
        assert opened.list_partitions() == DAYS[:2]
        assert open_source(load_settings()).list_partitions() == DAYS
        path = opened.snapshot(DAYS[0], storage.artifact_path("raw"))
        assert pl.read_parquet(str(path)).height == sandbox.sample(DAYS[0]).height


def test_a_missing_package_is_named_with_its_command(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with (
        sandbox.enter(project, {"DATA__KIND": "delta", "DATA__SOURCE": "table"}),
        pytest.raises(SettingsError, match="`uv add deltalake`"),
    ):
        open_source(load_settings()).list_partitions()
