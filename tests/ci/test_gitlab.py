"""The jobs of a project's GitLab pipeline, executed as GitLab's runner would.

Real: the scripts, pip, git, uv, the project and its template with releases. Stand-ins: GitLab is a
folder that keeps the options of a push, its container a virtual environment of the same Python.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ..support.projects import Project, make_installed_project
from ..support.template import commit_all, git
from ..support.workflows import (
    FEW_TESTS,
    GITLAB,
    ONE_CANDIDATE,
    STAGE,
    Forge,
    release,
    service,
    take_back,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# Git tells a hook the options of the push in variables.
HOOK = """#!/bin/sh
for number in $(seq 0 $((GIT_PUSH_OPTION_COUNT - 1))); do
    eval echo "\\$GIT_PUSH_OPTION_$number"
done > options
"""


@pytest.fixture(scope="module")
def repository(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a template of which more versions are released."""
    return shutil.copytree(template, tmp_path_factory.mktemp("template") / "template")


@pytest.fixture(scope="module")
def project(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project of the first version, committed with its lock file."""
    folder = tmp_path_factory.mktemp("gitlab") / "project"
    project = make_installed_project(repository, folder, ci="gitlab", orchestrator="dagster")
    commit_all(project.path, "Lock")
    return project


@pytest.fixture
def forge(repository: Path, project: Project, tmp_path: Path) -> Iterator[Forge]:
    """Return GitLab with the project, whose template has no newer version yet."""
    git(tmp_path, "clone", "--quiet", "--bare", str(project.path), "origin.git")
    git(tmp_path / "origin.git", "config", "receive.advertisePushOptions", "true")
    hook = tmp_path / "origin.git" / "hooks" / "post-receive"
    hook.write_text(HOOK)
    hook.chmod(0o755)
    secrets = {"TEMPLATE_UPDATE_TOKEN": "canary"}
    # Types are checked in more than one clone, each time with what was found before.
    variables = {**FEW_TESTS, "MYPY_CACHE_DIR": str(project.path.parent / "mypy")}
    machines = project.path.parent / "machines"
    yield Forge(tmp_path, tmp_path / "origin.git", machines, variables, secrets)
    take_back(repository)


def test_checks_and_tests_pass_in_a_clone(forge: Forge) -> None:
    done = forge.gitlab(GITLAB, "test", "push")

    assert done.succeeded, done.log
    assert "Success: no issues found" in done.log
    assert " passed" in done.log


def test_pipelines_run_in_a_clone(forge: Forge) -> None:
    forge.variables = ONE_CANDIDATE

    done = forge.gitlab(GITLAB, "pipeline", "push")

    assert done.succeeded, done.log
    database = sqlite3.connect(done.workspace / "mlflow.db")
    assert database.execute("select version from registered_model_aliases").fetchall() == [(1,)]


def test_audit_looks_up_what_is_locked(forge: Forge) -> None:
    with service({"query": (200, {})}) as osv:
        forge.variables |= {"PIP_AUDIT_OSV_URL": f"{osv.url}/query"}
        done = forge.gitlab(GITLAB, "audit", "push")

    assert done.succeeded, done.log
    assert {request.body["package"]["name"] for request in osv.requests} >= {"mlflow", "dagster"}


def test_update_says_that_a_project_is_current(forge: Forge) -> None:
    done = forge.gitlab(GITLAB, "update", "schedule")

    assert done.succeeded, done.log
    assert "already at" in done.log
    assert forge.branches() == ["main"]


@pytest.mark.parametrize(
    ("text", "checks"), [("\n\n# New in 0.2.0.\n", "passed"), ("\nimport os\n", "failed")]
)
def test_update_opens_a_merge_request_that_says_what_the_checks_said(
    forge: Forge, repository: Path, text: str, checks: str
) -> None:
    release(repository, "v0.2.0", text)

    done = forge.gitlab(GITLAB, "update", "schedule")

    assert done.succeeded == (checks == "passed"), done.log
    assert text.strip() in forge.pushed(STAGE)
    assert yaml.safe_load(forge.pushed(".copier-answers.yml"))["_commit"] == "v0.2.0"
    changed = git(forge.origin, "diff", "--name-only", "main", "template-update").split()
    assert changed == [".copier-answers.yml", STAGE]
    assert (forge.origin / "options").read_text().splitlines() == [
        "merge_request.create",
        "merge_request.target=main",
        f"merge_request.title=Update from the template, checks {checks}",
    ]
    assert "canary" not in done.log


def test_update_with_a_conflict_fails_with_the_files(forge: Forge, repository: Path) -> None:
    forge.edit_stage()
    release(repository, "v0.2.0", "\n\n# New in 0.2.0.\n")

    done = forge.gitlab(GITLAB, "update", "schedule")

    assert not done.succeeded
    assert STAGE in done.log
    assert forge.branches() == ["main"]
