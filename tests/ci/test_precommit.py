"""The hooks that a project brings for git: they run offline, and stop what they are there for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from ..support.projects import Project, make_installed_project
from ..support.template import ROOT, commit_all, git

CONFIG = ROOT / "template" / ".pre-commit-config.yaml"
CONFLICT = "<<<<<<< before\nours\n=======\ntheirs\n>>>>>>> after\n"
OFFLINE = {
    "UV_OFFLINE": "1",
    "HTTPS_PROXY": "http://127.0.0.1:1",
    "HTTP_PROXY": "http://127.0.0.1:1",
}
# What is written into which file, and the hook that stops it.
STOPPED = {
    "check-merge-conflict": ("README.md", CONFLICT),
    "ruff-check": ("src/flight_delays/stages/extra.py", '"""Extra."""\n\nimport os\n'),
    "ruff-format": ("src/flight_delays/stages/extra.py", "x = {  'a':1 }\n"),
    "check-toml": ("config/extra.toml", "a = = 1\n"),
    "check-yaml": ("deploy/extra.yaml", "a: [1\n"),
    "check-added-large-files": ("data/large.bin", "x" * 1_100_000),
    "detect-private-key": ("deploy/id.txt", "-----BEGIN RSA PRIVATE KEY-----\n"),
}


def test_hooks_are_programs_of_the_project() -> None:
    """Nothing that pre-commit would have to download."""
    config = yaml.safe_load(CONFIG.read_text())

    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    hooks = config["repos"][0]["hooks"]
    assert {hook["language"] for hook in hooks} == {"system"}
    assert {hook["id"] for hook in hooks} == {"uv-lock", *STOPPED}


@pytest.fixture(scope="module")
def project(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project with the hooks installed, committed with its lock file."""
    folder = tmp_path_factory.mktemp("hooks") / "project"
    project = make_installed_project(sources, folder, orchestrator="dagster")
    commit_all(project.path, "Lock")
    project.run("pre-commit", "install")
    return project


@pytest.fixture
def clean(project: Project) -> Project:
    """Return the project as it was committed."""
    git(project.path, "reset", "--quiet", "--hard")
    git(project.path, "clean", "--quiet", "-d", "--force")
    return project


@pytest.mark.slow
def test_all_hooks_pass_offline(clean: Project) -> None:
    done = clean.run("pre-commit", "run", "--all-files", variables=OFFLINE)

    assert done.stdout.count("Passed\n") == len(STOPPED) + 1
    assert git(clean.path, "status", "--porcelain") == ""


@pytest.mark.slow
@pytest.mark.parametrize("hook", STOPPED)
def test_a_hook_stops_a_commit(clean: Project, hook: str) -> None:
    name, text = STOPPED[hook]
    (clean.path / name).write_text(text)

    done = commit(clean)

    assert done.returncode != 0
    assert f"- hook id: {hook}\n" in done.stderr
    assert Path(name).name in done.stderr


@pytest.mark.slow
def test_a_lock_file_that_does_not_fit_stops_a_commit_and_is_corrected(clean: Project) -> None:
    pyproject = clean.path / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace('"rich>=14', '"rich>=14.1'))

    done = commit(clean)

    assert done.returncode != 0
    assert "- hook id: uv-lock\n" in done.stderr
    assert ">=14.1" in (clean.path / "uv.lock").read_text()
    assert commit(clean).returncode == 0
    git(clean.path, "reset", "--quiet", "--hard", "HEAD~1")


@pytest.mark.slow
@pytest.mark.parametrize("tracked", [True, False])
def test_check_fails_on_conflict_markers(clean: Project, tracked: bool) -> None:
    """A commit without the hooks gets as far as CI, which runs `poe check`."""
    file = clean.path / ("README.md" if tracked else "NOTES.md")
    file.write_text(f"One.\n{CONFLICT}")

    done = clean.run("poe", "check", check=False)

    assert done.returncode != 0
    assert f"{file.name}:2:<<<<<<< before" in done.stdout
    assert "ruff" not in done.stdout


def commit(project: Project) -> subprocess.CompletedProcess[str]:
    """Commit everything, as a person does; git runs the hooks."""
    git(project.path, "add", "--all")
    command = ["git", "commit", "--message=Try"]
    return subprocess.run(command, cwd=project.path, capture_output=True, text=True, check=False)
