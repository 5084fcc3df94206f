"""The jobs of a project's GitHub workflows, executed step by step as GitHub's runner would.

Real: the steps, git, uv, the project, its template with releases, and HTTP. Stand-ins: the
repository's host is a folder, GitHub's API and the list of vulnerabilities are servers on loopback.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ..support.projects import Project, make_installed_project
from ..support.services import install
from ..support.template import commit_all, git
from ..support.workflows import (
    CI,
    FEW_TESTS,
    HOST,
    ONE_CANDIDATE,
    REPOSITORY,
    SHELLS,
    STAGE,
    UPDATE,
    Forge,
    Result,
    Service,
    release,
    run,
    service,
    take_back,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# What GitHub says when there is a pull request of the branch already.
EXISTS = {
    "message": "Validation Failed",
    "errors": [
        {
            "resource": "PullRequest",
            "code": "custom",
            "message": "A pull request already exists for team:template-update.",
        }
    ],
}


@pytest.fixture(scope="module")
def repository(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a template of which more versions are released."""
    install()
    return shutil.copytree(template, tmp_path_factory.mktemp("template") / "template")


@pytest.fixture(scope="module")
def project(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project of the first version, committed with its lock file."""
    project = make_installed_project(repository, tmp_path_factory.mktemp("github") / "project")
    commit_all(project.path, "Lock")
    return project


@pytest.fixture
def forge(repository: Path, project: Project, tmp_path: Path) -> Iterator[Forge]:
    """Return GitHub with the project, whose template has no newer version yet."""
    git(tmp_path, "clone", "--quiet", "--bare", str(project.path), "origin.git")
    # Types are checked in more than one clone, each time with what was found before.
    variables = {**FEW_TESTS, "MYPY_CACHE_DIR": str(project.path.parent / "mypy")}
    machines = project.path.parent / "machines"
    secrets = {"GITHUB_TOKEN": "canary"}
    yield Forge(tmp_path, tmp_path / "origin.git", machines, variables, secrets)
    take_back(repository)


@pytest.fixture
def github(forge: Forge) -> Iterator[Service]:
    """Run a stand-in for GitHub's API; `answers` says what it answers to a path's end."""
    with service({"pulls": (201, {"number": 1}), "statuses": (201, {})}) as api:
        forge.variables["GITHUB_API_URL"] = api.url
        yield api


def test_checks_and_tests_pass_in_a_clone(forge: Forge) -> None:
    done = forge.github(CI, "test")

    assert done.succeeded, done.log
    assert "Success: no issues found" in done.log
    assert " passed" in done.log


def test_pipelines_run_in_a_clone(forge: Forge) -> None:
    forge.variables = ONE_CANDIDATE

    done = forge.github(CI, "pipeline")

    assert done.succeeded, done.log
    database = sqlite3.connect(done.workspace / "mlflow.db")
    assert database.execute("select version from registered_model_aliases").fetchall() == [(1,)]
    scored = list((done.workspace / "var" / "artifacts").rglob("predictions.parquet"))
    assert scored


def test_audit_fails_only_for_a_known_vulnerability(forge: Forge) -> None:
    with service({"query": (200, {})}) as osv:
        forge.variables |= {"PIP_AUDIT_OSV_URL": f"{osv.url}/query"}
        clean = forge.github(CI, "audit")
        asked = {request.body["package"]["name"] for request in osv.requests}
        osv.answers["query"] = (200, vulnerability("mlflow"))
        found = forge.github(CI, "audit")

    assert clean.succeeded, clean.log
    assert asked >= {"mlflow", "apache-airflow", "poethepoet"}
    assert not found.succeeded
    assert "CVE-2026-1" in found.log


def vulnerability(package: str) -> dict[str, object]:
    """Return what OSV answers of a package with a vulnerability."""
    fixed = {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99"}]}
    affected = {"package": {"name": package, "ecosystem": "PyPI"}, "ranges": [fixed]}
    return {"vulns": [{"id": "CVE-2026-1", "summary": "Bad.", "affected": [affected]}]}


def test_update_says_that_a_project_is_current(forge: Forge, github: Service) -> None:
    done = forge.github(UPDATE, "update")

    assert done.succeeded, done.log
    assert re.search(r"already at v?0\.1\.0", done.summary)
    assert list(done.outcomes.values())[-3:] == ["skipped"] * 3
    assert github.requests == []
    assert forge.branches() == ["main"]


def test_update_opens_a_pull_request_with_the_new_release(
    forge: Forge, github: Service, repository: Path
) -> None:
    release(repository, "v0.2.0", "\n\n# New in 0.2.0.\n")

    done = forge.github(UPDATE, "update")

    assert done.succeeded, done.log
    assert set(done.outcomes.values()) == {"success"}
    assert "-_commit: v0.1.0\n+_commit: v0.2.0\n" in done.summary
    assert "# New in 0.2.0." in forge.pushed(STAGE)
    assert yaml.safe_load(forge.pushed(".copier-answers.yml"))["_commit"] == "v0.2.0"
    changed = git(forge.origin, "diff", "--name-only", "main", "template-update").split()
    assert changed == [".copier-answers.yml", STAGE]
    status, pull = github.requests
    commit = git(forge.origin, "rev-parse", "template-update").strip()
    assert status.path == f"/repos/{REPOSITORY}/statuses/{commit}"
    assert status.body["state"] == "success"
    assert status.body["target_url"] == f"https://{HOST}/{REPOSITORY}/actions/runs/7"
    assert pull.path == f"/repos/{REPOSITORY}/pulls"
    assert pull.body.items() >= {"head": "template-update", "base": "main"}.items()
    assert {request.token for request in github.requests} == {"Bearer canary"}
    assert "canary" not in done.log


def test_update_that_fails_its_checks_is_shown_in_the_open_pull_request(
    forge: Forge, github: Service, repository: Path
) -> None:
    git(forge.origin, "branch", "template-update", "main")
    github.answers["pulls"] = (422, EXISTS)
    forge.secrets["TEMPLATE_UPDATE_TOKEN"] = "ours"
    release(repository, "v0.2.0", "\nimport os\n")

    done = forge.github(UPDATE, "update")

    assert not done.succeeded
    assert done.outcomes["check"] == "failure"
    assert done.outcomes["Open the pull request"] == "success", done.log
    assert "import os" in forge.pushed(STAGE)
    assert github.requests[0].body["state"] == "failure"
    assert {request.token for request in github.requests} == {"Bearer ours"}


@pytest.mark.parametrize(
    ("word", "status", "answer"),
    [
        ("pulls", 403, {"message": "GitHub Actions is not permitted to create pull requests."}),
        ("pulls", 422, {"message": "Validation Failed: no commits between them"}),
        ("statuses", 404, {"message": "Not Found"}),
    ],
)
def test_update_fails_when_github_refuses(
    github: Service, tmp_path: Path, word: str, status: int, answer: dict[str, str]
) -> None:
    """The last step alone, in a repository with nothing in it."""
    steps = yaml.safe_load(UPDATE.read_text())["jobs"]["update"]["steps"]
    git(tmp_path, "init", "--quiet", "--initial-branch=template-update", "workspace")
    git(tmp_path / "workspace", "commit", "--quiet", "--allow-empty", "--message=Update")
    git(tmp_path / "workspace", "remote", "add", "origin", str(tmp_path / "origin.git"))
    variables = {
        "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "BRANCH": "template-update", "TOKEN": "a",
        "CHECKS": "success", "GITHUB_API_URL": github.url, "GITHUB_REPOSITORY": REPOSITORY,
        "GITHUB_SERVER_URL": f"https://{HOST}", "GITHUB_RUN_ID": "7", "GITHUB_REF_NAME": "main",
    }  # fmt: skip
    results = [Result(workspace=tmp_path / "workspace") for _ in range(2)]

    run(SHELLS["bash"], steps[-1]["run"], variables, "open", results[0])
    github.answers[word] = (status, answer)
    run(SHELLS["bash"], steps[-1]["run"], variables, "open", results[1])

    assert results[0].succeeded, results[0].log
    assert not results[1].succeeded
    assert answer["message"] in results[1].log


def test_update_with_a_conflict_fails_with_the_files(
    forge: Forge, github: Service, repository: Path
) -> None:
    forge.edit_stage()
    release(repository, "v0.2.0", "\n\n# New in 0.2.0.\n")

    done = forge.github(UPDATE, "update")

    assert done.outcomes["update"] == "failure"
    assert set(list(done.outcomes.values())[-3:]) == {"skipped"}
    assert STAGE in done.log
    assert STAGE in done.summary
    assert github.requests == []
    assert forge.branches() == ["main"]
