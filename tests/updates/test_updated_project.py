"""Once for real: a project is installed, updated with its own command, tested and run.

The rest of what docs/update.md promises is in test_updates.py.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from ..support.projects import Project, make_installed_project
from ..support.template import commit_all, git
from . import changes, team
from .projects import NEW, OLD, release

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TESTS = ("test_ours", "test_guards", "core/test_settings", "orchestration/test_dags")


@pytest.fixture(scope="module")
def living(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Make, install and update a project with a year of work, with its own command."""
    template = tmp_path_factory.mktemp("living") / "template"
    shutil.copytree(sources, template)
    git(template, "init", "--quiet", "--initial-branch=main")
    release(template, OLD)
    project = make_installed_project(template, template.parent / "project")
    commit_all(project.path, "Lock")
    team.work(project.path, "airflow")
    subprocess.run(
        ["uv", "lock", "--quiet", "--python", project.python], cwd=project.path, check=True
    )
    commit_all(project.path, "Lock what we added")
    for change in changes.CHANGES:
        change(template)
    release(template, NEW)

    done = project.run("poe", "update")

    assert f"\n-_commit: {OLD}\n+_commit: {NEW}\n" in done.stdout
    assert git(project.path, "diff", "--name-only", "--diff-filter=U") == ""
    assert team.lost(project.path, "airflow") == []
    commit_all(project.path, "Update")
    return project


def test_an_updated_project_locks_installs_and_passes_its_tests(living: Project) -> None:
    lock = tomllib.loads((living.path / "uv.lock").read_text())
    assert {"copier", "tabulate"} <= {package["name"] for package in lock["package"]}
    living.run("ruff", "check", "src", "dags")
    # Whole runs on the engine are the next test's.
    passed = living.run("pytest", "-x", *(f"tests/{name}.py" for name in TESTS))
    assert int(re.search(r"(\d+) passed", passed.stdout)[1]) > 30  # type: ignore[index]
    assert living.run("poe", "nightly").stdout.endswith("good night\n")


def test_an_old_domain_runs_on_the_new_platform(living: Project) -> None:
    """Champion and all, with the team's own candidate and features."""
    living.run("poe", "run", "--partition", "2013-01-30")

    found = living.mlflow()
    assert found["aliases"] == {"champion": 1}
    tried = {run["params"].get("candidate") for run in found["runs"]}
    assert {"linear", "tree"} <= tried


def test_an_old_name_of_the_platform_warns_and_names_the_new_one(living: Project) -> None:
    warned = living.run("pytest", "-W", "always::DeprecationWarning", "tests/test_ours.py")

    assert "DeprecationWarning: metrics.predict is now metrics.outcome" in warned.stdout


def test_updating_twice_does_nothing(living: Project) -> None:
    done = living.run("poe", "update")

    assert done.stdout == "already at 1.1.0, there is nothing newer\n"
    assert git(living.path, "status", "--porcelain") == ""


def test_a_forgotten_mark_stops_check_and_commit(living: Project) -> None:
    """Also when it was committed; the last test of this project, which it leaves with conflicts."""
    template = living.path.parent / "template"
    changes.change_what_the_team_changed(template)
    release(template, "v1.2.0")
    done = living.run("poe", "update", check=False)
    assert done.returncode == 1
    assert "README.md" in done.stderr

    commit_all(living.path, "Who looks at this?")
    for command in (("poe", "check"), ("pre-commit", "run", "--all-files", "check-merge-conflict")):
        stopped = living.run(*command, check=False)
        assert stopped.returncode == 1
        assert "README.md" in stopped.stdout
        assert "stages/score.py" in stopped.stdout
