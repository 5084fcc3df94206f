"""Storage: whole files or none, on a disk and at any other address."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import polars as pl
import pytest
import sandbox
from flight_delays.core import storage
from flight_delays.core.refs import Manifest
from upath import UPath

FRAME = pl.DataFrame({"day": [date(2013, 1, 1), None], "number": [1, 2]})


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
    assert uri == "some/frame.parquet"
    assert storage.path_of(uri) == root / "some" / "frame.parquet"
    assert storage.read_parquet(uri).equals(FRAME)
    assert storage.read_parquet(uri, ["number"]).columns == ["number"]
    written = storage.path_of(storage.write_text(storage.artifact_path("text"), "é"))
    assert written.read_text(encoding="utf-8") == "é"
    written = storage.path_of(storage.write_bytes(storage.artifact_path("bytes"), b"\x00"))
    assert written.read_bytes() == b"\0"


def test_partitions_and_their_manifest(root: UPath) -> None:
    days = ["2013-01-01", "2013-01-02"]
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
