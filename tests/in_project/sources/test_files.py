"""Files as a source: which belong to a partition, whatever their names and folders."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import sandbox
from flight_delays.core import storage
from flight_delays.core.errors import DataRejected, MissingPartitions
from flight_delays.core.settings import load_settings
from flight_delays.sources import newest_partition, open_source
from flight_delays.sources.files import address
from upath import UPath

DAY = "2013-01-28"


def snapshot(partition: str) -> pl.DataFrame:
    """Return the rows of a partition's copy."""
    path = open_source(load_settings()).snapshot(partition, storage.artifact_path("raw"))
    again = open_source(load_settings()).snapshot(partition, storage.artifact_path("raw"))
    assert again == path
    if path.suffix == ".csv":
        return pl.read_csv(path.read_bytes())
    return storage.read_parquet(str(path))


@pytest.mark.parametrize("root", ["", "memory://bucket/"])
def test_a_source_may_lie_anywhere(project: Path, tmp_path: Path, root: str) -> None:
    source = UPath(f"{root or tmp_path}/source")
    for name in ("2013-01-02.csv", "2013-01-01.csv", "2013-01-03.parquet", "notes.txt"):
        storage.write_text(source / name, f"a,b\n1,{name[-5]}\n")
    with sandbox.enter(project, {"DATA__SOURCE": str(source), "DATA__FILE": "{partition}.csv"}):
        assert open_source(load_settings()).list_partitions() == ["2013-01-01", "2013-01-02"]
        assert snapshot("2013-01-02").rows() == [(1, 2)]


@pytest.mark.parametrize("files", [1, 2])
def test_a_copy_that_a_power_cut_emptied_is_made_again(project: Path, files: int) -> None:
    source = project / "several"
    for number in range(files):
        storage.write_text(UPath(source / DAY / f"{number}.csv"), f"a\n{number}\n")
    variables = {"DATA__SOURCE": "several", "DATA__FILE": "{partition}/*.csv"}
    with sandbox.enter(project, variables):
        rows = snapshot(DAY)
        (copy,) = storage.artifact_path("raw").iterdir()
        copy.write_bytes(b"")
        assert snapshot(DAY).equals(rows)


def test_a_source_may_have_a_store_of_its_own(project: Path) -> None:
    """Its keys are not those of the artefacts, and nobody sees them."""
    variables = {
        "DATA__SOURCE": "memory://elsewhere",
        "DATA__STORAGE_OPTIONS": '{"secret": "hush", "key": "mine"}',
    }
    with sandbox.enter(project, variables):
        settings = load_settings()
        found = address(settings.data)
        artefact = storage.artifact_path("x")
    assert found.storage_options == {"secret": "hush", "key": "mine"}
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
        (tmp_path / "source" / found).write_text(found)
    variables = {"DATA__SOURCE": str(tmp_path / "source"), "DATA__FILE": pattern}
    with sandbox.enter(project, variables):
        source = open_source(load_settings())
        assert source.list_partitions() == [DAY]
        assert source.snapshot(DAY, storage.artifact_path("raw")).read_text() == name


def test_a_file_of_a_day_that_does_not_exist_is_no_partition(project: Path) -> None:
    (project / "data/sample/2013-02-30.parquet").touch()
    found = open_source(load_settings()).list_partitions()
    assert DAY in found
    assert "2013-02-30" not in found


def test_a_source_that_is_not_there_has_no_partitions(project: Path) -> None:
    with sandbox.enter(project, {"DATA__SOURCE": "nowhere"}):
        assert open_source(load_settings()).list_partitions() == []
        with pytest.raises(MissingPartitions, match="no longer holds partition 2013-01-28"):
            open_source(load_settings()).snapshot(DAY, storage.artifact_path("raw"))


@pytest.mark.parametrize("root", ["", "memory://hive/"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_files_of_a_hive_folder_are_one_partition(
    project: Path, tmp_path: Path, suffix: str, root: str
) -> None:
    source = UPath(f"{root or tmp_path}/source-{suffix}")
    frames = {
        "date=2013-01-27/part-0": pl.DataFrame({"n": [0], "text": ["x"]}),
        "date=2013-01-28/part-0": pl.DataFrame({"n": [1, 2], "text": ["a;", None]}),
        "date=2013-01-28/part-1": pl.DataFrame({"n": [3], "text": ['"b"']}),
    }
    for name, frame in frames.items():
        path = source / f"{name}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        write = frame.write_csv if suffix == "csv" else frame.write_parquet
        with path.open("wb") as stream:
            write(stream)
    (source / "date=2013-01-28" / "_SUCCESS").write_bytes(b"")
    (source / "date=2013-01-29").mkdir()
    variables = {
        "DATA__SOURCE": str(source),
        "DATA__FILE": "date={partition}/part-*." + suffix,
    }
    with sandbox.enter(project, variables):
        assert open_source(load_settings()).list_partitions() == ["2013-01-27", "2013-01-28"]
        # A CSV's types are the contract's to say.
        found = snapshot(DAY).cast({"n": pl.Int64})
        assert found.rows() == [(1, "a;"), (2, None), (3, '"b"')]


def test_a_part_that_cannot_be_read_rejects_its_partition(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / DAY
    folder.mkdir()
    pl.DataFrame({"n": [1]}).write_parquet(folder / "0.parquet")
    (folder / "1.parquet").write_bytes(b"PAR1 cut off")
    variables = {"DATA__SOURCE": str(tmp_path), "DATA__FILE": "{partition}/*.parquet"}
    with sandbox.enter(project, variables), pytest.raises(DataRejected, match="unreadable_file"):
        snapshot(DAY)


@pytest.mark.parametrize(
    ("cadence", "names", "newest"),
    [
        ("hour", ["2013-01-28T23", "2013-01-29T00"], "2013-01-29T00"),
        ("week", ["2012-W52", "2013-W01", "2013-W54"], "2013-W01"),
        ("month", ["2012-12", "2013-01", "2013-01-01"], "2013-01"),
    ],
)
def test_names_follow_the_cadence(
    project: Path, tmp_path: Path, cadence: str, names: list[str], newest: str
) -> None:
    for name in names:
        (tmp_path / f"{name}.csv").write_text("a\n1\n")
    variables = {
        "DATA__SOURCE": str(tmp_path),
        "DATA__FILE": "{partition}.csv",
        "DATA__CADENCE": cadence,
    }
    with sandbox.enter(project, variables):
        assert newest_partition(load_settings()) == newest


def test_a_snapshot_is_one_file_or_several(project: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        pl.DataFrame({"n": [number]}).write_parquet(tmp_path / f"part-{number}.parquet")
    for pattern, rows in (("part-*.parquet", [1, 2]), ("part-2.parquet", [2])):
        variables = {
            "DATA__SOURCE": str(tmp_path),
            "DATA__FILE": pattern,
            "DATA__CADENCE": "none",
        }
        with sandbox.enter(project, variables):
            assert open_source(load_settings()).list_partitions() == ["all"]
            assert snapshot("all")["n"].to_list() == rows


def test_only_a_star_means_more_than_itself(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "[raw]?" / DAY
    folder.mkdir(parents=True)
    for number in (1, 2):
        pl.DataFrame({"n": [number]}).write_parquet(folder / f"{number}.parquet")
    variables = {"DATA__SOURCE": str(tmp_path), "DATA__FILE": "[raw]?/{partition}/*.parquet"}
    with sandbox.enter(project, variables):
        assert open_source(load_settings()).list_partitions() == [DAY]
        assert snapshot(DAY)["n"].to_list() == [1, 2]
