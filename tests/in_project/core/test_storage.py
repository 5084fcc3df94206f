"""Storage: whole files or none, on a disk and at any other address."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import polars as pl
import pytest
import sandbox
from flight_delays.core import storage
from flight_delays.core.refs import Manifest
from flight_delays.core.settings import load_settings
from flight_delays.sources.files import (
    list_partitions,
    partition_path,
)
from upath import UPath

FRAME = pl.DataFrame({"day": [date(2013, 1, 1), None], "number": [1, 2]})
DAY = date(2013, 1, 28)


@pytest.fixture(params=["var/artifacts", "memory://bucket/artifacts"])
def root(request: pytest.FixtureRequest, project: Path) -> Iterator[UPath]:
    """Return the artefact root: below the project, and on a remote store."""
    with sandbox.enter(project, {"STORAGE__ROOT": request.param}):
        path = storage.resolve(request.param)
        yield path
        if "://" in request.param:
            path.fs.rm(path.path, recursive=True)


def files(root: UPath) -> list[str]:
    """Return the names of all files below a path."""
    return sorted(path.name for path in root.rglob("*") if path.is_file())


def test_what_is_written_can_be_read(root: UPath) -> None:
    path = storage.artifact_path("some", "frame.parquet")
    uri = storage.write_parquet(path, FRAME)
    assert uri == str(root / "some" / "frame.parquet")
    assert storage.read_parquet(uri).equals(FRAME)
    assert storage.read_parquet(uri, ["number"]).columns == ["number"]
    written = UPath(storage.write_text(storage.artifact_path("text"), "é"))
    assert written.read_text(encoding="utf-8") == "é"
    assert UPath(storage.write_bytes(storage.artifact_path("bytes"), b"\x00")).read_bytes() == b"\0"


def test_partitions_and_their_manifest(root: UPath) -> None:
    days = [date(2013, 1, 1), date(2013, 1, 2)]
    written = [
        storage.write_partition(storage.artifact_path(f"{day}.parquet"), day, FRAME) for day in days
    ]
    assert [(file.partition, file.rows) for file in written] == [(day, 2) for day in days]
    assert written[0].fingerprint == written[1].fingerprint
    manifest = Manifest(files=tuple(written))
    uri = storage.write_model(storage.artifact_path("manifest.json"), manifest)
    assert list(storage.read_manifest(uri)) == written
    assert storage.read_partitions(written).equals(pl.concat([FRAME, FRAME]))


def test_writing_again_replaces_the_file(root: UPath) -> None:
    path = storage.artifact_path("text")
    storage.write_text(path, "first and longer")
    storage.write_text(path, "second")
    assert path.read_text() == "second"
    assert files(root) == ["text"]


def test_a_write_that_fails_leaves_nothing(root: UPath) -> None:
    path = storage.artifact_path("text")

    def fail() -> None:
        with storage.atomic(path) as temporary:
            temporary.write_text("half of i")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert files(root) == []
    storage.write_text(path, "old")
    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_text() == "old"
    assert files(root) == ["text"]


def test_a_stage_record_and_a_source_may_lie_anywhere(root: UPath, project: Path) -> None:
    source = root / "source"
    for name in ("2013-01-02.csv", "2013-01-01.csv", "2013-01-03.parquet", "notes.txt"):
        storage.write_text(source / name, "a,b\n1,2\n")
    with sandbox.enter(project, {"DATA__SOURCE": str(source), "DATA__FILE": "{partition}.csv"}):
        settings = load_settings()
        assert list_partitions(settings) == [date(2013, 1, 1), date(2013, 1, 2)]
        assert partition_path(settings, date(2013, 1, 2)).read_text() == "a,b\n1,2\n"


def test_a_source_may_have_a_store_of_its_own(project: Path) -> None:
    """Its keys are not those of the artefacts, and nobody sees them."""
    variables = {
        "DATA__SOURCE": "memory://elsewhere",
        "DATA__STORAGE_OPTIONS": '{"secret": "hush", "key": "mine"}',
    }
    with sandbox.enter(project, variables):
        settings = load_settings()
        file = partition_path(settings, date(2013, 1, 2))
        artefact = storage.artifact_path("x")
    assert file.storage_options == {"secret": "hush", "key": "mine"}
    assert not artefact.storage_options
    assert "hush" not in f"{settings!r}" + settings.model_dump_json()


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("{partition}.parquet", "2013-01-28.parquet"),
        ("flights+{partition} (new).csv", "flights+2013-01-28 (new).csv"),
    ],
)
def test_the_pattern_of_a_file_is_no_regular_expression(
    project: Path, tmp_path: Path, pattern: str, name: str
) -> None:
    (tmp_path / "source").mkdir()
    for found in (name, name.replace("+", "+++"), f"x{name}", f"{name}x", "2013-01-28xparquet"):
        (tmp_path / "source" / found).touch()
    variables = {"DATA__SOURCE": str(tmp_path / "source"), "DATA__FILE": pattern}
    with sandbox.enter(project, variables):
        assert list_partitions(load_settings()) == [DAY]
        assert partition_path(load_settings(), DAY).name == name


def test_a_file_of_a_day_that_does_not_exist_is_no_partition(project: Path) -> None:
    (project / "data/sample/2013-02-30.parquet").touch()
    assert date(2013, 1, 28) in list_partitions(load_settings())


def test_a_source_that_is_not_there_has_no_partitions(project: Path) -> None:
    with sandbox.enter(project, {"DATA__SOURCE": "nowhere"}):
        assert list_partitions(load_settings()) == []


def test_what_killed_processes_left_is_swept_and_what_others_write_is_not(project: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    host = socket.gethostname()
    folders = {
        f"{host}-{dead.pid}": False,
        f"{host}-{os.getpid()}": True,
        "other-host-1": True,
        "old-host-1": False,
    }
    for folder in folders:
        storage.write_text(storage.artifact_path(".tmp", folder, "half.parquet"), "x")
    os.utime(str(storage.artifact_path(".tmp", "old-host-1")), (0, 0))
    storage.sweep_temporary()
    left = {path.name for path in storage.artifact_path(".tmp").iterdir()}
    assert left == {folder for folder, kept in folders.items() if kept}


def test_addresses_start_at_the_projects_root(project: Path) -> None:
    assert str(storage.resolve("var/x")) == str(project / "var" / "x")
    assert str(storage.resolve("memory://bucket/x")) == "memory://bucket/x"
    absolute = os.path.abspath(os.sep)
    assert str(storage.resolve(absolute)) == absolute


def test_a_fingerprint_depends_on_where_the_parts_end() -> None:
    assert storage.fingerprint("ab", "c") != storage.fingerprint("a", "bc")
    assert storage.fingerprint("a", b"b") == storage.fingerprint(b"a", "b")
