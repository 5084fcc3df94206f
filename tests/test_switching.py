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
from copier import run_update

from .conftest import commit_all, git
from .projects import Project, make_installed_project, training_result
from .test_questions import CONFIG, QUESTIONS, choices

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ENGINES: list[str] = choices(QUESTIONS["orchestrator"])
# Each move once, each begins where the last one ended.
CIRCUIT = [
    *("airflow", "dagster", "airflow", "prefect", "airflow", "kubeflow"),
    *("dagster", "prefect", "dagster", "kubeflow", "prefect", "kubeflow", "airflow"),
]
MOVES = list(pairwise(CIRCUIT))
# Files that only one engine's project has.
OWN_FILES = {
    "airflow": [
        *("dags/training.py", "orchestration/airflow/local.py"),
        "tests/orchestration/test_dags.py",
    ],
    "dagster": ["definitions.py", "orchestration/dagster/local.py"],
    "prefect": ["flows/training.py", "prefect.yaml", "orchestration/prefect/local.py"],
    "kubeflow": ["pipelines/training.py", "orchestration/kubeflow/local.py"],
}
FOLDERS = {"airflow": ["dags"], "prefect": ["flows"], "kubeflow": ["pipelines"]}
# What the team wrote: a file of the template's and what is in it instead or in addition.
FEATURE = "\n\n# Ours: distance counts double.\n"
STAGE = '''

def our_own_helper() -> str:
    """Return what the team added to a stage."""
    return "ours"
'''
README = "\n## Our runbook\n\nCall the night shift.\n"
MINE = {
    "dags/cleanup.py": '''"""Our own DAG."""

from airflow.sdk import dag, task

from flight_delays.orchestration.airflow.tasks import DEFAULT_ARGS


@task
def remove_old_reports() -> None:
    """Remove reports nobody reads any more."""


@dag(dag_id="cleanup", schedule=None, default_args=DEFAULT_ARGS)
def cleanup() -> None:
    """Wire the graph."""
    remove_old_reports()


cleanup()
''',
    "flows/cleanup.py": '''"""Our own flow."""

from prefect import flow


@flow
def cleanup() -> None:
    """Remove reports nobody reads any more."""
''',
    "tests/test_ours.py": '''"""Our own test."""

from flight_delays.stages.score import our_own_helper


def test_ours() -> None:
    assert our_own_helper() == "ours"
''',
}


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
def test_switching(moving: Moving, old: str, new: str) -> None:
    project = moving.project
    assert has(project, old)

    run_update(project.path, data={"orchestrator": new}, defaults=True, quiet=True, overwrite=True)

    # No conflict, edits kept, the old engine gone, the team's own files kept.
    assert git(project.path, "diff", "--name-only", "--diff-filter=U") == ""
    assert git(project.path, "diff", "--check") == ""
    for path, text in moving.edits().items():
        assert text in (project.path / path).read_text(), path
    assert has(project, new)
    assert not any(path.exists() for path in own_files(project, old))
    unknown = git(project.path, "ls-files", "--others", "--exclude-standard").split()
    assert not [name for name in unknown if name.endswith((".rej", ".orig"))]

    subprocess.run(
        ["uv", "lock", "--quiet", "--python", project.python], cwd=project.path, check=True
    )
    lock = (project.path / "uv.lock").read_text()
    assert f'name = "{PACKAGES[new]}"' in lock
    assert f'name = "{PACKAGES[old]}"' not in lock
    assert 'name = "tabulate"' in lock
    commit_all(project.path, f"Move to {new}")
    # A DAG of the team's own cannot find the helpers of an engine that is gone.
    folders = ("src", "tests", *FOLDERS.get(new, []))
    project.run("ruff", "check", *folders)
    project.run("ruff", "format", "--check", *folders)
    project.run("pytest", "-x", *own_tests(project, old, new))

    # A run on the new engine continues the history: the same model, so no second version.
    project.run("poe", "run", "--partition", "2013-01-30")
    after = project.mlflow()
    assert {run["id"] for run in moving.before["runs"]} < {run["id"] for run in after["runs"]}
    assert training_result(after) == training_result(moving.before)
    assert after["versions"] == [1]
    assert after["aliases"] == {"champion": 1}
    moving.before = after


PACKAGES = {
    "airflow": "apache-airflow",
    "dagster": "dagster",
    "prefect": "prefect",
    "kubeflow": "kfp",
}


def own_files(project: Project, engine: str) -> list[Path]:
    """Return files that only this engine's project has."""
    package = project.path / "src" / project.package
    inside = ("orchestration/", "defs/")
    return [
        (package if name.startswith(inside) else project.path) / name for name in OWN_FILES[engine]
    ]


def has(project: Project, engine: str) -> bool:
    """Return whether the project has all of an engine's files."""
    return all(path.exists() for path in own_files(project, engine))


def own_tests(project: Project, old: str, new: str) -> list[str]:
    """Return the guards, the team's own tests and, at its first arrival, those of the engine.

    The whole suite runs for each scaffold; what a move can break is the engine.
    """
    names = ["tests/test_guards.py", "tests/test_ours.py"]
    if (old, new) == next(move for move in MOVES if move[1] == new):
        names += ["tests/orchestration/test_*.py"]
    found = [path for name in names for path in project.path.glob(name)]
    return [str(path.relative_to(project.path)) for path in found]
