"""Seen is not complete: files are taken when they have stopped growing, or with their marker."""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
import sandbox
from flight_delays.core import storage
from flight_delays.core.errors import (
    DataRejected,
    PipelineError,
    SettingsError,
    StillArriving,
)
from flight_delays.core.refs import Pipeline, Run
from flight_delays.core.settings import load_settings
from flight_delays.orchestration.runs import arrived
from flight_delays.sources import arrival, files, open_source
from flight_delays.stages.ingest import ingest

DAY, BEFORE = "2013-01-28", "2013-01-27"
ROWS = sandbox.sample(DAY)
FORMATS = {
    "{partition}.parquet": sandbox.as_parquet(ROWS),
    "{partition}.csv": ROWS.write_csv().encode(),
    "{partition}.jsonl": ROWS.write_ndjson().encode(),
    "{partition}.csv.gz": gzip.compress(ROWS.write_csv().encode()),
    "date={partition}/part-*.parquet": sandbox.as_parquet(ROWS),
}


class Writer:
    """Somebody who writes more of a file between two looks: `sleep` is when that happens."""

    def __init__(self, path: Path, parts: list[bytes]) -> None:
        self.path, self.parts, self.slept = path, parts, 0
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self.write()

    def write(self) -> None:
        """Write the next part, if there is one."""
        if self.parts:
            with self.path.open("ab") as stream:
                stream.write(self.parts.pop(0))
            # However coarse the clock of the disk is.
            os.utime(self.path, ns=(0, time.time_ns() + self.slept))

    def sleep(self, seconds: float) -> None:
        """Write instead of sleeping."""
        self.slept += seconds > 0
        self.write()


@pytest.fixture
def writing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    arrival._SETTLED.clear()
    yield
    arrival._SETTLED.clear()


def sleep_by(monkeypatch: pytest.MonkeyPatch, sleep: Callable[[float], None]) -> None:
    """Do something between two looks instead of sleeping; others sleep as always."""
    clock = SimpleNamespace(sleep=sleep, time=time.time)
    monkeypatch.setattr(arrival, "time", clock)
    monkeypatch.setattr(files, "time", clock)


def name_of(pattern: str, partition: str = DAY) -> str:
    return pattern.replace("{partition}", partition).replace("*", "0")


def start_writing(
    root: Path, pattern: str, parts: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> tuple[Writer, dict[str, str]]:
    """Begin to write the newest day; the one before is there and old."""
    old = root / name_of(pattern, BEFORE)
    old.parent.mkdir(parents=True, exist_ok=True)
    old.write_bytes(FORMATS[pattern])
    os.utime(old, (0, 0))
    writer = Writer(root / name_of(pattern), parts)
    sleep_by(monkeypatch, writer.sleep)
    return writer, {
        "DATA__SOURCE": str(root),
        "DATA__FILE": pattern,
        "DATA__SETTLE_SECONDS": "5",
    }


def run_of(pipeline: Pipeline) -> Run:
    return Run(pipeline=pipeline, partition=DAY, key="arrival", tracking_run_id="known")


def halves(data: bytes) -> list[bytes]:
    return [data[: len(data) // 2], data[len(data) // 2 :]]


@pytest.mark.usefixtures("writing")
@pytest.mark.parametrize("pattern", FORMATS)
def test_a_file_that_grows_has_not_arrived_until_it_stops(
    project: Path, tmp_path: Path, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, variables = start_writing(
        tmp_path / "source", pattern, halves(FORMATS[pattern]), monkeypatch
    )
    with sandbox.enter(project, variables):
        assert open_source(load_settings()).list_partitions() == [BEFORE]
        assert arrived(DAY) == DAY
        assert open_source(load_settings()).list_partitions() == [BEFORE, DAY]


@pytest.mark.usefixtures("writing")
@pytest.mark.parametrize("pattern", FORMATS)
def test_the_stage_waits_for_the_rest_of_a_file_and_takes_all_of_it(
    project: Path, tmp_path: Path, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the writer pauses, as far as the content shows that its end is missing."""
    first, second = halves(FORMATS[pattern])
    pauses = [] if pattern.endswith(".csv") else [b"", b""]
    writer, variables = start_writing(
        tmp_path / "source", pattern, [first, *pauses, second], monkeypatch
    )
    with sandbox.enter(project, variables):
        path = open_source(load_settings()).snapshot(DAY, storage.artifact_path("raw"))
    assert path.read_bytes() == FORMATS[pattern]
    assert writer.slept


@pytest.mark.usefixtures("writing")
def test_a_file_that_never_stops_is_an_error_that_may_be_tried_again(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pattern = "{partition}.csv"
    _, variables = start_writing(tmp_path / "source", pattern, [b"line\n"] * 99, monkeypatch)
    with sandbox.enter(project, variables):
        # It is long over, and comes all the same.
        assert arrived(DAY) is None
        with pytest.raises(
            StillArriving, match=rf"{DAY} .* still being written: .* rename"
        ) as error:
            open_source(load_settings()).snapshot(DAY, storage.artifact_path("raw"))
    # Engines try again what is none.
    assert not isinstance(error.value, PipelineError)


@pytest.mark.usefixtures("writing")
def test_a_file_that_stays_cut_is_rejected_in_the_end(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pattern = "{partition}.parquet"
    part = halves(FORMATS[pattern])[0]
    writer, variables = start_writing(tmp_path / "source", pattern, [part], monkeypatch)
    with sandbox.enter(project, variables | sandbox.SMALL):
        with pytest.raises(DataRejected, match="unreadable_file"):
            ingest(run_of("inference"))
        assert writer.slept == arrival.MOST_LOOKS
        # Delivered again, it is looked at again.
        writer.path.write_bytes(FORMATS[pattern])
        assert ingest(run_of("inference")).rows == 2 * ROWS.height


@pytest.mark.usefixtures("writing")
def test_files_that_are_old_or_known_cost_no_second_look(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pattern = "{partition}.parquet"
    whole = FORMATS[pattern]
    writer, variables = start_writing(tmp_path / "source", pattern, [whole], monkeypatch)
    with sandbox.enter(project, variables):
        for _ in range(3):
            assert arrived(DAY) == DAY
            open_source(load_settings()).snapshot(DAY, storage.artifact_path("raw"))
        assert writer.slept == 1
        arrival._SETTLED.clear()
        os.utime(writer.path, (0, 0))
        assert arrived(DAY) == DAY
        assert writer.slept == 1


@pytest.mark.usefixtures("writing")
def test_a_file_that_joins_a_partition_makes_it_grow(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pattern = "date={partition}/part-*.parquet"
    writer, variables = start_writing(tmp_path / "source", pattern, [FORMATS[pattern]], monkeypatch)

    def deliver_another(seconds: float) -> None:
        another = writer.path.parent / "part-1.parquet"
        if not another.exists():
            another.write_bytes(FORMATS[pattern])

    sleep_by(monkeypatch, deliver_another)
    with sandbox.enter(project, variables):
        assert open_source(load_settings()).list_partitions() == [BEFORE]
        assert open_source(load_settings()).list_partitions() == [BEFORE, DAY]


@pytest.mark.usefixtures("writing")
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_table_that_grows_is_read_once_it_stops(
    project: Path, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = FORMATS[f"{{partition}}.{suffix}"]
    writer = Writer(tmp_path / f"table.{suffix}", halves(data))
    sleep_by(monkeypatch, writer.sleep)
    variables = {
        "DATA__KIND": "table",
        "DATA__SOURCE": str(writer.path),
        "DATA__SETTLE_SECONDS": "5",
    }
    with sandbox.enter(project, variables):
        source = open_source(load_settings())
        # Of half a CSV there are rows already.
        assert source.list_partitions() == ([DAY] if suffix == "csv" else [])
        assert arrived(DAY) == DAY
        writer.parts += [b"x"] * 99
        writer.write()
        with pytest.raises(StillArriving, match=r"the table at .* is still being written"):
            source.snapshot(DAY, storage.artifact_path("raw"))


@pytest.mark.parametrize(
    ("pattern", "marker", "file"),
    [
        ("{partition}.csv", "{partition}.done", f"{DAY}.done"),
        ("date={partition}/*.csv", "_SUCCESS", f"date={DAY}/_SUCCESS"),
    ],
)
def test_with_a_marker_a_partition_is_complete_when_it_is_there(
    project: Path, tmp_path: Path, pattern: str, marker: str, file: str
) -> None:
    source = tmp_path / "source"
    path = source / name_of(pattern)
    path.parent.mkdir(parents=True)
    ROWS.write_csv(path)
    variables = {"DATA__SOURCE": str(source), "DATA__FILE": pattern, "DATA__MARKER": marker}
    with sandbox.enter(project, variables | sandbox.SMALL | {"MONITORING__WINDOW": "1"}):
        assert open_source(load_settings()).list_partitions() == []
        assert arrived(DAY) is None
        with pytest.raises(StillArriving, match=f"{DAY} has no .*{marker[-5:]} yet"):
            ingest(run_of("inference"))
        (source / file).touch()
        assert arrived(DAY) == DAY
        assert ingest(run_of("inference")).rows == ROWS.height


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"DATA__MARKER": "_SUCCESS"}, "marker must contain {partition}, unless"),
        ({"DATA__MARKER": "x", "DATA__KIND": "table"}, 'marker is for kind = "files", not for'),
    ],
)
def test_a_marker_that_can_never_be_is_refused(
    project: Path, variables: dict[str, str], said: str
) -> None:
    with sandbox.enter(project, variables), pytest.raises(SettingsError, match=said):
        load_settings()


def test_an_earlier_day_that_is_still_written_is_left_out(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = project / "data" / "sample" / f"{BEFORE}.parquet"
    writer = Writer(sample.with_suffix(".part"), [b"x"] * 99)
    writer.path = sample
    sample.write_bytes(b"")
    sleep_by(monkeypatch, writer.sleep)
    with sandbox.enter(project, sandbox.SMALL | {"DATA__SETTLE_SECONDS": "5"}):
        made = ingest(run_of("training"))
    assert [one.partition for one in made.left_out] == [BEFORE]


def test_a_link_out_of_the_source_is_refused_by_name(project: Path, tmp_path: Path) -> None:
    """What it leads to would be copied to where all can read it."""
    secret = tmp_path / ".env"
    secret.write_text("PASSWORD=hush\n")
    source = tmp_path / "source"
    source.mkdir()
    (source / f"{DAY}.csv").symlink_to(secret)
    (source / "2013-01-29").symlink_to(tmp_path, target_is_directory=True)
    for pattern, day, link in (
        ("{partition}.csv", DAY, f"{DAY}.csv"),
        ("{partition}/.env.csv", "2013-01-29", ".env"),
    ):
        if pattern.startswith("{partition}/"):
            secret.rename(tmp_path / ".env.csv")
        variables = {"DATA__SOURCE": str(source), "DATA__FILE": pattern}
        with (
            sandbox.enter(project, variables),
            pytest.raises(DataRejected, match=f"link_out_of_source: .*{link}.* is a link to"),
        ):
            open_source(load_settings()).snapshot(day, storage.artifact_path("raw"))
    table = {"DATA__SOURCE": str(source), "DATA__KIND": "table"}
    secret.touch()
    with sandbox.enter(project, table), pytest.raises(DataRejected, match="link_out_of_source"):
        open_source(load_settings()).list_partitions()
    assert not list((project / "var").rglob("raw/*"))


def test_the_source_may_itself_be_a_link_and_links_may_stay_inside(
    project: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    ROWS.write_parquet(store / "1.parquet")
    (store / f"{DAY}.parquet").symlink_to("1.parquet")
    (tmp_path / "source").symlink_to(store)
    with sandbox.enter(project, {"DATA__SOURCE": str(tmp_path / "source")}):
        path = open_source(load_settings()).snapshot(DAY, storage.artifact_path("raw"))
        assert pl.read_parquet(str(path)).height == ROWS.height
