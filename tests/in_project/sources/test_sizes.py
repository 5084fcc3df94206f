"""Size is checked before memory is used: a partition that is too large is rejected by name."""

from __future__ import annotations

import gzip
import resource
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
import sandbox
import sqlalchemy as sa
from flight_delays.cli.score_file import score_file
from flight_delays.core.errors import DataRejected
from flight_delays.core.outcomes import Violation
from flight_delays.core.refs import Pipeline, Run
from flight_delays.core.settings import load_settings
from flight_delays.sources import open_source
from flight_delays.sources import read as reading
from flight_delays.stages.ingest import ingest
from flight_delays.stages.validate import validate
from upath import UPath

DAY = sandbox.PARTITION
SMALL = sandbox.SMALL | {"MONITORING__WINDOW": "1", "VALIDATION__MAX_MEGABYTES": "50"}


def parquet_of_repeated_text() -> bytes:
    """Some kilobytes of file, 600 MB of text."""
    return sandbox.as_parquet(pl.DataFrame({"text": ["x" * 2_000_000] * 300}))


def run_of(pipeline: Pipeline) -> Run:
    return Run(pipeline=pipeline, partition=DAY, key="sizes", tracking_run_id="known")


def zstd(data: bytes) -> bytes:
    stream = pa.BufferOutputStream()
    with pa.CompressedOutputStream(stream, "zstd") as packed:
        packed.write(data)
    return bytes(stream.getvalue())


BOMBS: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "Parquet of repeated text": ("parquet", parquet_of_repeated_text, "600 MB or more, at most 50"),
    "Parquet of many rows": (
        "parquet",
        lambda: sandbox.as_parquet(pl.DataFrame({"n": pl.repeat(1, 2_000_000, eager=True)})),
        r"2,000,000 rows, at most 1,000,000 may be \(max_rows in \[validation\]\)",
    ),
    "gzip": ("csv.gz", lambda: gzip.compress(bytes(99_000_000)), "64 MB or more, at most 50 may"),
    "zstd": ("jsonl.zst", lambda: zstd(bytes(99_000_000)), "64 MB or more, at most 50 may"),
    "gzip without a name": ("csv", lambda: gzip.compress(bytes(99_000_000)), "64 MB or more"),
    "large file": ("csv", lambda: b"a\n" * 30_000_000, r"60 MB .* \(max_megabytes in \[valid"),
    "long line": (
        "csv",
        lambda: b"a,b\n1,2\n" + b"x" * 11_000_000 + b"\n1,2\n",
        r"a line of 10 MB or more, at most 10 may be \(max_line_megabytes in \[validation\]\)",
    ),
    "long line of JSON": (
        "jsonl",
        lambda: b'{"a": "' + b"x" * 11_000_000 + b'"}\n',
        "a line of 10 MB or more",
    ),
}


@pytest.mark.parametrize("name", ["training", "inference"])
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_rejected_in_a_sentence_without_its_memory(
    project: Path, tmp_path: Path, bomb: str, name: Pipeline
) -> None:
    suffix, content, said = BOMBS[bomb]
    source = tmp_path / "source"
    source.mkdir()
    (source / f"{DAY}.{suffix}").write_bytes(content())
    variables = {
        "DATA__SOURCE": str(source),
        "DATA__FILE": f"{{partition}}.{suffix}",
        "VALIDATION__MAX_ROWS": "1000000",
        "TRAINING__MIN_PARTITIONS_SHARE": "0",
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with sandbox.enter(project, SMALL | variables):
        run = run_of(name)
        with pytest.raises(DataRejected, match=f"too_large: .*{said}") as caught:
            validate(run, ingest(run))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 400_000  # kilobytes
    assert len(str(caught.value)) < 400


def test_an_earlier_bomb_costs_no_more_than_itself(project: Path, tmp_path: Path) -> None:
    days = [sandbox.day(-back) for back in (2, 1, 0)]
    variables = sandbox.source_of(tmp_path / "source", days)
    (tmp_path / "source" / f"{days[1]}.parquet").write_bytes(parquet_of_repeated_text())
    with sandbox.enter(project, SMALL | variables | {"MONITORING__WINDOW": "3"}):
        run = run_of("inference")
        valid = validate(run, ingest(run))
    assert [(one.partition, one.check) for one in valid.left_out] == [(days[1], "too_large")]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_table_and_parts_are_measured_too(project: Path, tmp_path: Path, suffix: str) -> None:
    rows = sandbox.sample()
    source = tmp_path / "source"
    source.mkdir()
    for part in (1, 2):
        path = source / f"{DAY}-{part}.{suffix}"
        rows.write_csv(path) if suffix == "csv" else rows.write_parquet(path)
    most = {"DATA__SOURCE": str(source), "VALIDATION__MAX_ROWS": f"{rows.height + 1}"}
    for kind in ({"DATA__KIND": "table"}, {"DATA__FILE": f"{{partition}}-*.{suffix}"}):
        with sandbox.enter(project, SMALL | most | kind):
            said = f"too_large: {2 * rows.height} rows, at most {rows.height + 1} may be"
            with pytest.raises(DataRejected, match=said):
                ingest(run_of("inference"))


def test_a_query_is_ended_when_its_rows_are_too_many(project: Path, tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/rows.db")
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE rows (date TEXT, n INTEGER)"))
        insert = sa.text("INSERT INTO rows VALUES (:day, :n)")
        connection.execute(insert, [{"day": DAY, "n": n} for n in range(11)])
    variables = {
        "DATA__KIND": "sql",
        "DATA__SOURCE": f"sqlite:///{tmp_path}/rows.db",
        "DATA__QUERY": "SELECT * FROM rows WHERE date >= :start AND date < :end",
        "VALIDATION__MAX_ROWS": "10",
    }
    with sandbox.enter(project, SMALL | variables):
        assert open_source(load_settings()).list_partitions() == [DAY]
        with pytest.raises(DataRejected, match="too_large: 11 rows, at most 10 may be"):
            ingest(run_of("inference"))


def test_a_file_to_score_is_measured_too(project: Path, tmp_path: Path) -> None:
    (tmp_path / "file.parquet").write_bytes(parquet_of_repeated_text())
    with sandbox.enter(project, SMALL), pytest.raises(DataRejected, match="too_large: 600 MB"):
        score_file(tmp_path / "file.parquet", tmp_path / "made.csv")


def test_rows_are_counted_in_a_store_that_is_no_disk() -> None:
    path = UPath("memory://bucket/rows.parquet")
    path.write_bytes(sandbox.as_parquet(sandbox.sample()))
    assert reading.count_rows(path) == reading.read_file(path).height == sandbox.sample().height


def test_lines_up_to_the_limit_are_read(project: Path) -> None:
    with sandbox.enter(project, {"VALIDATION__MAX_LINE_MEGABYTES": "0.000010"}):
        assert reading.parse(b"a\n123456789\n1\n12345", ".csv").height == 3
        with pytest.raises(reading.TooLarge, match="a line of"):
            reading.parse(b"a\n12345678901\n1\n", ".csv")


# --- values in messages -------------------------------------------------------------------------


def test_values_are_shortened_and_control_characters_shown_as_escapes() -> None:
    found = Violation(check="x", detail="a\x1b[31m\n" + "y" * 20_000_000, column="\x00" * 100)
    assert found.detail.startswith(r"a\x1b[31m\n" + "yyy")
    assert "characters left out) …" in found.detail
    assert len(found.detail) < 1_100
    assert f"{found.column}" == r"\x00" * 100
    assert Violation.model_validate_json(found.model_dump_json()) == found
    assert Violation(check="x", detail="Zoë 日本 \\n").detail == "Zoë 日本 \\n"


def test_rows_that_are_shown_are_short_and_plain(project: Path, tmp_path: Path) -> None:
    rows = sandbox.sample().with_columns(
        carrier=pl.lit("\x1b]0;owned\x07" + "z" * 5_000), beyond=pl.lit([["w" * 5_000]])
    )
    variables = sandbox.source_of(tmp_path / "source", [DAY])
    rows.write_parquet(tmp_path / f"source/{DAY}.parquet")
    with sandbox.enter(project, SMALL | variables):
        run = run_of("inference")
        with pytest.raises(DataRejected) as caught:
            validate(run, ingest(run))
        report = Path(caught.value.report_uri).read_text()
    assert len(report) < 50_000
    assert "\\\\x1b]0;owned\\\\x07zzz" in report
    assert "\\u001b" not in report
