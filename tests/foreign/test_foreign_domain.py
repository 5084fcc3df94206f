"""A table that the template has never seen: its team edits what is its own, and nothing else.

What is replaced is what an update never touches: domain/, config/, data/ and tests/domain/.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from ..support.projects import Project, make_installed_project
from ..support.scaffolds import IDS, SCAFFOLDS
from ..support.template import Render

DOMAIN = Path(__file__).parent / "domain"
# What the sample's columns, dates and categories are made of, and what it is about.
SAMPLE_WORDS = re.compile(
    r"flight|airline|airport|carrier|departure|(arr|dep)_(delay|time)|sched_|wind_speed|visib"
    r"|\bprecip|\b(EWR|JFK|LGA)\b|\b2013-|\(2013, ",
    re.IGNORECASE,
)
# The team's, and the frozen example of the template's own tests.
OWNED = ("config/", "data/", "src/churn/domain/", "tests/domain/", "tests/example/")
CONFIG = """
[project]
name = "Tumours"
slug = "churn"
owner = "oncology"
[validation]
min_rows = 20
[training]
window = 8
wider_window = 9
holdout = 3
candidates = ["bayes"]
trials = 2
[gates.metrics.roc_auc]
min = 0.9
[monitoring]
max_psi = 1e9
"""
# Twelve partitions of a table that has neither a time nor a key.
DATA = """
from datetime import date, timedelta
import polars as pl
from sklearn.datasets import load_breast_cancer
table = load_breast_cancer(as_frame=True).frame
rows = pl.from_pandas(table).rename(lambda name: name.replace(" ", "_"))
rows = rows.with_columns(benign=pl.col("target") == 1).drop("target")
for number in range(12):
    day = date(2026, 3, 1) + timedelta(days=number)
    rows.gather_every(12, number).write_parquet(f"data/sample/{day}.parquet")
"""


@pytest.mark.parametrize("path", SCAFFOLDS, ids=IDS)
def test_nothing_that_the_template_owns_knows_the_sample(path: Path, render: Render) -> None:
    answers: dict[str, Any] = yaml.safe_load(path.read_text())
    names = {"project_name": "Churn", "project_slug": "churn", "package_name": "churn"}
    names |= {"description": "Who leaves?"}
    project = render(**answers | names)
    found = [
        f"{file.relative_to(project)}:{number}: {line.strip()}"
        for file in sorted(project.rglob("*"))
        if file.is_file() and not f"{file.relative_to(project)}".startswith(OWNED)
        for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1)
        if SAMPLE_WORDS.search(line)
    ]

    assert found == []


@pytest.fixture(scope="module")
def foreign(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project whose team has replaced all that is its own."""
    project = make_installed_project(
        sources, tmp_path_factory.mktemp("foreign"), project_name="Churn"
    )
    domain = project.path / "src" / project.package / "domain"
    for folder in (domain, project.path / "data", project.path / "tests" / "domain"):
        shutil.rmtree(folder)
    shutil.copytree(DOMAIN, domain)
    (project.path / "data" / "sample").mkdir(parents=True)
    (project.path / "config" / "pipeline.toml").write_text(CONFIG)
    project.run("python", "-c", DATA)
    # Needed no longer, as docs/your-data.md says.
    shutil.rmtree(domain.parent / "cli" / "onboard")
    return project


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_foreign_table_has_a_champion_predictions_and_green_tests(foreign: Project) -> None:
    trained = foreign.run("poe", "run")
    assert "version 1 is champion" in " ".join(trained.stdout.split())
    mlflow = foreign.mlflow()
    assert mlflow["aliases"] == {"champion": 1}

    foreign.run("poe", "run", "--pipeline", "inference")
    [scored] = [
        run for run in foreign.mlflow()["runs"] if run["tags"].get("pipeline.name") == "inference"
    ]
    assert scored["status"] == "FINISHED"
    assert scored["metrics"]["rows.score"] == 47

    tested = foreign.run("poe", "test")
    assert re.search(r"\d{2,} passed", tested.stdout)
    foreign.run("poe", "check")
    assert "onboard" not in foreign.run("churn", "--help").stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_wrong_domain_is_a_sentence_from_doctor_the_engine_and_the_runner(
    foreign: Project,
) -> None:
    file = foreign.path / "src" / foreign.package / "domain" / "schema.py"
    good = file.read_text()
    file.write_text(good.replace('LABEL = "benign"', 'LABEL = "bening"'))
    try:
        for command in (("churn", "doctor"), ("churn", "run", "training"), ("poe", "run")):
            done = foreign.run(*command, check=False)
            said = " ".join((done.stdout + done.stderr).split())
            assert done.returncode != 0
            assert "LABEL names 'bening', which is not a column of the contract" in said, command
    finally:
        file.write_text(good)
