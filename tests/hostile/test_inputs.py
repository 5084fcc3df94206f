"""Hostile files, servers and requests, met by an installed project.

What they are is in in_project/, whose modules run inside the project, with hypothesis beside it.
HOSTILE_EXAMPLES=50 tries fifty times as many, and others each time.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ..support.projects import Project, make_installed_project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

IN_PROJECT = Path(__file__).parents[1] / "in_project"


@pytest.fixture(scope="module")
def project(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return an installed project with a service."""
    folder = tmp_path_factory.mktemp("hostile")
    return make_installed_project(sources, folder, orchestrator="dagster", serving="rest")


def run_inside(project: Project, name: str) -> None:
    """Run a module of in_project/ as one of the project's tests."""
    for module in ("hostile_examples.py", name):
        shutil.copy(IN_PROJECT / module, project.path / "tests")
    done = project.run("--with", "hypothesis>=6.140,<7", "pytest", f"tests/{name}", check=False)
    assert done.returncode == 0, f"{done.stdout[-8000:]}\n{done.stderr[-2000:]}"
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def test_hostile_files_never_crash_a_stage_without_a_named_error(project: Project) -> None:
    run_inside(project, "hostile_data.py")


def test_hostile_servers_never_block_a_run_or_hide_its_error(project: Project) -> None:
    run_inside(project, "hostile_servers.py")


def test_hostile_requests_are_refused_and_nothing_of_them_is_run(project: Project) -> None:
    run_inside(project, "hostile_requests.py")
