"""A project moves from each engine to each other with `copier update`, and loses nothing.

One project makes all twelve moves, one after another: its own edits, its champion and the history
of its runs stay with it all the way.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from copier import run_copy, run_update

from ..support.projects import Project, make_installed_project, training_result
from ..support.questions import CONFIG, QUESTIONS, choices, read_answers
from ..support.template import commit_all, git
from .team import MINE, README, STAGE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ENGINES: list[str] = choices(QUESTIONS["orchestrator"])
# Each move once, each begins where the last one ended.
CIRCUIT = [
    *("airflow", "dagster", "airflow", "prefect", "airflow", "kubeflow"),
    *("dagster", "prefect", "dagster", "kubeflow", "prefect", "kubeflow", "airflow"),
]
MOVES = list(pairwise(CIRCUIT))
PACKAGES = {
    "airflow": "apache-airflow",
    "dagster": "dagster",
    "prefect": "prefect",
    "kubeflow": "kfp",
}
# Where an engine's own code is, besides the package and the tests.
FOLDERS = {"airflow": ["dags"], "prefect": ["flows"], "kubeflow": ["pipelines"]}
# What the team wrote: a file of the template's and what is in it instead or in addition.
FEATURE = "\n\n# Ours: distance counts double.\n"


@dataclass
class Moving:
    """The project, and what MLflow held before the last move."""

    project: Project
    before: dict[str, Any]

    def edits(self) -> dict[Path, str]:
        """Return the team's edits: the file and the text that must be in it."""
        package = Path("src") / self.project.package
        return {
            package / "domain" / "features.py": FEATURE,
            Path("config/pipeline.toml"): "trials = 1 ",
            package / "stages" / "score.py": STAGE,
            Path("README.md"): README,
            Path("pyproject.toml"): '"tabulate>=0.9"',
            **{Path(name): text for name, text in MINE.items()},
        }


@pytest.fixture(scope="module")
def moving(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Moving:
    """Make a project on Airflow with edits of all kinds, and train its first champion."""
    project = make_installed_project(template, tmp_path_factory.mktemp("moving") / "project")
    # An engine that comes again finds its bytecode again.
    project.environment["PYTHONPYCACHEPREFIX"] = str(project.path.parent / "bytecode")
    moving = Moving(project, {})
    for path, text in moving.edits().items():
        file = project.path / path
        file.parent.mkdir(exist_ok=True)
        if path.name == "pipeline.toml":
            project.edit_config("trials = 5 ", text)
        elif path.name == "pyproject.toml":
            subprocess.run(
                ["uv", "add", "--quiet", "--python", project.python, "tabulate>=0.9"],
                cwd=project.path,
                check=True,
            )
        else:
            file.write_text((file.read_text() if file.exists() else "") + text)
    commit_all(project.path, "Our work")
    project.run("poe", "run", "--partition", "2013-01-30")
    moving.before = project.mlflow()
    assert moving.before["aliases"] == {"champion": 1}
    assert training_result(moving.before) == training_result(project.run_alone("2013-01-30"))
    return moving


def test_the_circuit_makes_every_move_once() -> None:
    assert CIRCUIT[0] == CIRCUIT[-1] == CONFIG["orchestrator"]["default"]
    assert len(MOVES) == len(set(MOVES)) == len(ENGINES) * (len(ENGINES) - 1)


@pytest.mark.parametrize(("old", "new"), MOVES, ids=[f"{old}-{new}" for old, new in MOVES])
def test_switching(moving: Moving, template: Path, tmp_path: Path, old: str, new: str) -> None:
    project = moving.project

    run_update(project.path, data={"orchestrator": new}, defaults=True, quiet=True, overwrite=True)

    assert git(project.path, "diff", "--name-only", "--diff-filter=U") == ""
    assert git(project.path, "diff", "--check") == ""
    assert_dependencies_moved(project, old, new)
    commit_all(project.path, f"Move to {new}")
    # The edits are kept, and beside them is what a new project of the engine has, and no more.
    for path, text in moving.edits().items():
        assert text in (project.path / path).read_text(), path
    fresh = Path(run_copy(str(template), tmp_path, data=answered(project), quiet=True).dst_path)
    assert differences(project.path, fresh) == {*moving.edits(), Path("uv.lock")}
    # Whoever comes a second time finds the same files as a new project, and as the first time.
    if (old, new) != next(move for move in MOVES if move[1] == new):
        return
    assert_clean(project, new)

    # A run on the new engine continues the history: the same model, so no second version.
    project.run("poe", "run", "--partition", "2013-01-30")
    after = project.mlflow()
    assert {run["id"] for run in moving.before["runs"]} < {run["id"] for run in after["runs"]}
    assert training_result(after) == training_result(moving.before)
    assert after["versions"] == [1]
    assert after["aliases"] == {"champion": 1}
    moving.before = after


def assert_dependencies_moved(project: Project, old: str, new: str) -> None:
    """Lock, and assert that the engine's packages have come, the old one's gone, ours stayed."""
    subprocess.run(
        ["uv", "lock", "--quiet", "--python", project.python], cwd=project.path, check=True
    )
    lock = (project.path / "uv.lock").read_text()
    assert f'name = "{PACKAGES[new]}"' in lock
    assert f'name = "{PACKAGES[old]}"' not in lock
    assert 'name = "tabulate"' in lock


def answered(project: Project) -> dict[str, Any]:
    """Return a project's answers as they are now."""
    answers = read_answers(project.path)
    return {name: value for name, value in answers.items() if not name.startswith("_")}


def differences(project: Path, fresh: Path) -> set[Path]:
    """Return the files that are not the same in a project's repository and in a fresh project."""
    ours = {Path(name) for name in git(project, "ls-files", "-z").split("\0") if name}
    theirs = {path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file()}
    return {
        path
        for path in ours | theirs
        if path not in ours & theirs or (project / path).read_bytes() != (fresh / path).read_bytes()
    }


def assert_clean(project: Project, engine: str) -> None:
    """Assert that the linter, the guards and the team's own tests are content.

    Once an engine: when it comes again, the project is the same again. The other tests are those
    of a new project, which run for each scaffold.
    """
    # A DAG of the team's own cannot find the helpers of an engine that is gone.
    folders = ("src", "tests", *FOLDERS.get(engine, []))
    project.run("ruff", "check", *folders)
    project.run("ruff", "format", "--check", *folders)
    guards = [str(path) for path in project.path.glob("tests/**/test_guards*.py")]
    assert guards
    project.run("pytest", "-x", *guards, "tests/test_ours.py")
