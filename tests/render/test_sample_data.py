"""The data in the box: rebuilt byte for byte, small, and as its README says."""

import datetime as dt
import subprocess
from pathlib import Path

import polars as pl
import pytest

from ..support.template import ROOT

DATA = ROOT / "template" / "data"
KEY = ["date", "carrier", "flight", "origin", "sched_dep_time"]


def parquet_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.parquet")}


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    return pl.read_parquet(DATA / "*" / "*.parquet")


def test_script_rebuilds_the_same_bytes(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "build_sample_data.py"
    subprocess.run(["uv", "run", "--quiet", "--script", script, tmp_path], check=True)
    assert parquet_files(tmp_path) == parquet_files(DATA)


def test_one_file_a_day() -> None:
    january_on = [dt.date(2013, 1, 1) + dt.timedelta(day) for day in range(31 + 7)]
    july_on = [dt.date(2013, 7, 1) + dt.timedelta(day) for day in range(10)]
    expected = {f"sample/{day}.parquet" for day in january_on}
    expected |= {f"drift/{day}.parquet" for day in july_on}
    assert set(parquet_files(DATA)) == expected
    for path in DATA.rglob("*.parquet"):
        assert pl.read_parquet(path)["date"].unique().to_list() == [
            dt.date.fromisoformat(path.stem)
        ]


def test_data_is_small() -> None:
    assert sum(map(len, parquet_files(DATA).values())) < 1_000_000


def test_every_day_has_flights(rows: pl.DataFrame) -> None:
    assert rows.group_by("date").len()["len"].min() > 500  # type: ignore[operator]


def test_key_is_unique(rows: pl.DataFrame) -> None:
    assert not rows.select(KEY).is_duplicated().any()


def test_only_weather_and_target_are_missing(rows: pl.DataFrame) -> None:
    missing = {column.name for column in rows if column.null_count()}
    assert missing == {"temp", "wind_speed", "visib", "precip", "pressure", "arr_delay"}


def test_readme_lists_the_columns(rows: pl.DataFrame) -> None:
    lines = (DATA / "README.md").read_text(encoding="utf-8").splitlines()
    listed = [line.split("|")[1:3] for line in lines if line.startswith("| `") and "/`" not in line]
    assert [(name.strip(" `"), dtype.strip()) for name, dtype in listed] == [
        (name, str(dtype)) for name, dtype in rows.schema.items()
    ]
