"""Whatever a team sets in what is its own, the tests that the template gave it stay green."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from ..support.projects import Project, make_installed_project

# What a team may sensibly set, by name: none of it is the value that a project begins with.
SETTINGS = {
    "owner": '"Data Science <ds@example.com>"',
    "source": '"s3://bucket/rows"',
    "file": '"{partition}.csv"',
    "cadence": '"week"',
    "time_zone": '"Europe/Berlin"',
    "settle_seconds": "30",
    "min_rows": "5000",
    "min_rows_share": "0.9",
    "few_rows": '"reject"',
    "max_invalid_share": "0.0",
    "max_null_share": "1.0",
    "max_shift_psi": "0.01",
    "window": "60",
    "holdout": "14",
    "wider_window": "90",
    "min_labelled_share": "0.8",
    "min_partitions_share": "1.0",
    "candidates": '["linear"]',
    "trials": "50",
    "seed": "1",
    "threads": "8",
    "min_improvement": "0.5",
    "min": "0.999",
    "max_psi": "0.5",
    "max_drifted_share": "0.9",
    "training": '"0 6 * * 1"',
    "inference": '"30 4 * * *"',
    "start_date": "2030-01-01",
    "catchup": "true",
    "retries": "0",
    "retry_delay_seconds": "0",
    "stage_timeout_minutes": "0.5",
    "wait_timeout_minutes": "100000",
    "wait_interval_seconds": "0.5",
    "root": '"s3://bucket/artifacts"',
    "keep_days": "30",
    "level": '"DEBUG"',
    "json_lines": "true",
}


def change_settings(config: Path) -> set[str]:
    """Give each setting another value; returns the names of those that kept theirs."""
    name_and_value = re.compile(r"^(\w+)( = )(\[.*?\]|\"[^\"]*\"|[^\s#]+)", re.MULTILINE)
    kept = set()

    def change(found: re.Match[str]) -> str:
        name, equals, value = found.groups()
        kept.update({name} - SETTINGS.keys())
        return f"{name}{equals}{SETTINGS.get(name, value)}"

    config.write_text(name_and_value.sub(change, config.read_text()))
    return kept


def make_it_theirs(project: Project) -> set[str]:
    """Do to a project what its team may; returns the settings that nobody changed."""
    kept = change_settings(project.path / "config" / "pipeline.toml")
    for folder in ("sample", "drift"):
        shutil.rmtree(project.path / "data" / folder)
    (project.path / "data" / "lookup.csv").write_text("code;name\n1;one\n")
    (project.path / ".env").write_text("PIPELINE_TRAINING__TRIALS=3\nPIPELINE_LIMITS__RETRIES=9\n")
    return kept


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("orchestrator", ["airflow", "dagster"])
def test_nothing_that_a_team_sets_turns_the_tests_red(
    orchestrator: str, sources: Path, tmp_path: Path
) -> None:
    project = make_installed_project(sources, tmp_path / "project", orchestrator=orchestrator)

    # A new setting deserves a line above; these two are answers.
    assert make_it_theirs(project) == {"name", "slug"}

    tested = project.run("poe", "test")
    assert re.search(r"\d{2,} passed", tested.stdout)
