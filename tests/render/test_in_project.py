"""The template's own machinery, tested inside installed projects.

The tests are in in_project/, in rooms like those of a project's `src/`. A project is not given
them: it keeps the tests of what its team changes. What all engines have in common is tested once,
in a project with both channels of alerts, a service and monitoring.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from ..support.projects import Project, make_installed_project

IN_PROJECT = Path(__file__).parents[1] / "in_project"
# What all engines have in common is tested once, in a project that has everything else.
COMMON = [
    *("alerts", "cli", "core", "reporting", "serving", "stages"),
    *("ml/test_drift.py", "ml/test_metrics_classification.py"),
]
# Each project with what it runs beside its engine's tests.
PROJECTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "dagster": ({"orchestrator": "dagster", "serving": "rest"}, COMMON),
    "airflow": ({"orchestrator": "airflow"}, []),
    "prefect": (
        {"orchestrator": "prefect", "problem": "regression"},
        ["ml/test_metrics_regression.py"],
    ),
    "kubeflow": ({"orchestrator": "kubeflow"}, []),
}


def names_for(name: str) -> list[str]:
    """Return the files and folders of in_project/ that a project runs."""
    return [f"orchestration/{name}", "orchestration/test_whole_run.py", *PROJECTS[name][1]]


def copy_into(project: Project, names: list[str]) -> None:
    """Copy tests into the project, where its own fixtures are theirs, too."""
    target = project.path / "tests" / "in_project"
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if (IN_PROJECT / name).is_dir():
            shutil.copytree(IN_PROJECT / name, target / name)
        else:
            shutil.copy(IN_PROJECT / name, target / name)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", PROJECTS)
def test_the_machinery_works_in_a_project(
    name: str, sources: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    project = make_installed_project(sources, tmp_path_factory.mktemp(name), **PROJECTS[name][0])
    copy_into(project, names_for(name))
    project.share_mypy_cache(tmp_path_factory.getbasetemp())

    done = project.run(
        *("--with", "trustme>=1.2,<2"),
        *("pytest", "--durations=15", "tests/in_project"),
        check=False,
    )

    assert done.returncode == 0, f"{done.stdout[-12000:]}\n{done.stderr[-2000:]}"
    assert re.search(r"\d+ passed", done.stdout)
    assert "skipped" not in done.stdout.splitlines()[-1]
    typed = project.run("--with", "trustme>=1.2,<2", "mypy")
    assert "Success: no issues found" in typed.stdout


def test_every_test_in_a_project_is_run_by_one() -> None:
    run: set[Path] = set()
    for entry in {entry for name in PROJECTS for entry in names_for(name)}:
        path = IN_PROJECT / entry
        run |= {path} if path.is_file() else set(path.rglob("test_*.py"))

    assert set(IN_PROJECT.rglob("test_*.py")) == run
