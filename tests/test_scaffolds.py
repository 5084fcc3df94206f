"""Every scaffold: generated, locked, installed from its own files, checked, tested, and run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import ROOT, git
from .projects import Project, make_installed_project

SCAFFOLDS = sorted((ROOT / "scaffolds").glob("*.yml"))
IDS = [path.stem for path in SCAFFOLDS]

pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(path, marks=[] if path.stem == "default" else pytest.mark.slow, id=path.stem)
        for path in SCAFFOLDS
    ],
)
def scaffold(
    request: pytest.FixtureRequest, sources: Path, tmp_path_factory: pytest.TempPathFactory
) -> Project:
    """Return a scaffold's project, installed on its own Python."""
    answers: dict[str, Any] = yaml.safe_load(request.param.read_text())
    return make_installed_project(sources, tmp_path_factory.mktemp("scaffold"), **answers)


def test_code_is_clean_at_birth(scaffold: Project) -> None:
    """Lint with Airflow's rules, formatting and strict types find nothing."""
    checked = scaffold.run("poe", "check")

    assert "Success: no issues found" in checked.stdout


def test_its_own_tests_pass(scaffold: Project) -> None:
    done = scaffold.run("poe", "test")

    counted = re.search(r"(\d+) passed", done.stdout)
    assert counted
    assert int(counted[1]) > 100
    assert "skipped" not in done.stdout.splitlines()[-1]


def test_its_pipelines_run_on_airflow(scaffold: Project) -> None:
    """`poe run` trains, registers and crowns a model, without any service."""
    ran = scaffold.run("poe", "run", "--partition", "2013-01-31")

    assert "promoted: version 1 is champion" in " ".join(ran.stdout.split())
    mlflow = scaffold.mlflow()
    assert mlflow["aliases"] == {"champion": 1}
    [parent] = [run for run in mlflow["runs"] if "pipeline.name" in run["tags"]]
    assert parent["status"] == "FINISHED"
    assert len(mlflow["runs"]) == 4

    scaffold.run("poe", "run", "--pipeline", "inference", "--partition", "2013-02-01")
    [parent] = [
        run for run in scaffold.mlflow()["runs"] if run["tags"].get("pipeline.name") == "inference"
    ]
    assert parent["metrics"]["rows.score"] > 500


def test_nothing_that_git_should_not_hold(scaffold: Project) -> None:
    """A project that was installed, tested and run has nothing new to commit but its lock file."""
    assert git(scaffold.path, "status", "--porcelain").split() == ["??", "uv.lock"]


@pytest.mark.parametrize("path", SCAFFOLDS, ids=IDS)
def test_a_scaffold_says_for_whom_it_is(path: Path) -> None:
    assert path.read_text().startswith("# For ")


def test_readme_lists_every_scaffold() -> None:
    text = (ROOT / "README.md").read_text()

    assert set(re.findall(r"`scaffolds/([\w-]+)\.yml`", text)) == set(IDS)
