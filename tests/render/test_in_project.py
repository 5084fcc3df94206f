"""The template's own machinery, tested inside installed projects.

The tests are in in_project/, in rooms like those of a project's `src/`. A project is not given
them: it keeps the tests of what its team changes.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ..support import services
from ..support.projects import Project, make_installed_project

IN_PROJECT = Path(__file__).parents[1] / "in_project"
# Each project with what it runs beside its engine's tests. What all engines have in common is
# tested in one of them, and about as much in each.
PROJECTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "dagster": (
        {"orchestrator": "dagster", "serving": "rest"},
        ["orchestration/local_state", "alerts", "cli", "core", "reporting", "serving"],
    ),
    "airflow": (
        {"orchestrator": "airflow", "serving": "rest"},
        [
            *("orchestration/local_state", "sources", "stages"),
            *("ml/test_drift.py", "ml/test_estimators.py"),
            *("ml/test_metrics_classification.py", "ml/test_splits.py"),
        ],
    ),
    "prefect": (
        {"orchestrator": "prefect", "problem": "regression"},
        ["orchestration/local_state", "ml/test_metrics_regression.py"],
    ),
    # Its state is on a cluster, which is named on purpose.
    "kubeflow": ({"orchestrator": "kubeflow"}, []),
}

# What the tests need beside the project's own packages.
WITH = [
    *("--with", "trustme>=1.2,<2"),
    *("--with", "duckdb-engine", "--with", "deltalake", "--with", "psycopg[binary]"),
]


@contextmanager
def databases(name: str, folder: Path) -> Iterator[dict[str, str]]:
    """Run PostgreSQL for the project that tests sources; yields where it is."""
    if "sources" not in PROJECTS[name][1]:
        yield {}
        return
    services.install()
    with services.postgres(folder / "postgres") as server:
        yield {"TEST_POSTGRES": f"postgresql+psycopg://{server.create('rows')}"}


def names_for(name: str) -> list[str]:
    """Return the files and folders of in_project/ that a project runs."""
    of_all = sorted(f"orchestration/{file.name}" for file in IN_PROJECT.glob("orchestration/*.py"))
    return [f"orchestration/{name}", *of_all, *PROJECTS[name][1]]


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
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", PROJECTS)
def test_the_machinery_works_in_a_project(
    name: str, sources: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp(name)
    project = make_installed_project(sources, folder / "project", **PROJECTS[name][0])
    copy_into(project, names_for(name))
    project.share_mypy_cache(tmp_path_factory.getbasetemp())

    with databases(name, folder) as variables:
        done = project.run(
            *(*WITH, "pytest", "--durations=15", "tests/in_project"),
            check=False,
            variables=variables,
        )

    assert done.returncode == 0, f"{done.stdout[-12000:]}\n{done.stderr[-2000:]}"
    assert re.search(r"\d+ passed", done.stdout)
    assert "skipped" not in done.stdout.splitlines()[-1]
    typed = project.run(*WITH, "mypy")
    assert "Success: no issues found" in typed.stdout


def test_every_test_in_a_project_is_run_by_one() -> None:
    run: set[Path] = set()
    for entry in {entry for name in PROJECTS for entry in names_for(name)}:
        path = IN_PROJECT / entry
        run |= {path} if path.is_file() else set(path.rglob("test_*.py"))

    assert set(IN_PROJECT.rglob("test_*.py")) == run
