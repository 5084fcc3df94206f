"""docs/adopt.md: a repository with its own code takes the template in, and loses nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

from ..support.projects import Project, find_python
from ..support.template import ROOT, commit_all, git

GUIDE = (ROOT / "docs" / "adopt.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What was there before.
THEIRS = {
    "README.md": "# Parcels\n\nWe count parcels.\n",
    "LICENSE": "All rights are ours.\n",
    ".gitignore": "*.parcel\n",
    "pyproject.toml": """\
[project]
name = "parcels"
version = "7.0"
requires-python = ">=3.11"
dependencies = ["inflection>=0.5"]

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
""",
    "src/parcels/__init__.py": """\
from inflection import pluralize

def label(count): return f'{count} {pluralize("parcel")}'
""",
    "tests/conftest.py": """\
import pytest

@pytest.fixture
def count(): return 7
""",
    "tests/test_parcels.py": """\
from parcels import label

def test_label_of_parcels(count): assert label(count) == '7 parcels'
""",
    "dags/cleanup.py": '''\
"""Our own DAG."""

from airflow.sdk import dag, task


@task
def remove_old_reports() -> None:
    """Remove reports nobody reads any more."""


@dag(schedule=None)
def cleanup() -> None:
    """Wire the graph."""
    remove_old_reports()


cleanup()
''',
    "notes/2019.txt": "Parcels were counted by hand.\n",
}
# Files that both have, in a repository that made no room.
SHARED = {"README.md", "LICENSE", ".gitignore", "pyproject.toml", "tests/conftest.py"}
YES = {"README.md", ".gitignore", "pyproject.toml"}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "repository")


def make_repository(folder: Path) -> Path:
    """Make a repository with a package, tests, a DAG and a history of its own."""
    for name, text in THEIRS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit_all(folder, "Seven versions of parcels")
    return folder


def blocks(language: str) -> list[str]:
    """Return the guide's blocks of code in a language."""
    return [text for found, text in BLOCK.findall(GUIDE) if found == language]


def commands() -> list[str]:
    """Return the guide's commands, without their comments."""
    lines = [line for text in blocks("console") for line in text.splitlines()]
    assert all(line.startswith("$ ") for line in lines)
    return [line.removeprefix("$ ").split("     #")[0] for line in lines]


def copy(repository: Path, template: Path, say: Callable[[str], bool]) -> set[str]:
    """Run the guide's `copier copy` on a terminal; returns the files it asked for.

    Args:
        repository: What takes the template in.
        template: Its git repository.
        say: Whether to overwrite a file.
    """
    [command] = [line for line in commands() if "copier copy" in line]
    arguments = command.replace("../ml-pipeline-template", str(template)).split()
    assert arguments.pop(0) == "uvx"
    child = pexpect.spawn(
        sys.executable,
        ["-m", *arguments],
        cwd=str(repository),
        encoding="utf-8",
        timeout=60,
        dimensions=(24, 200),
        # This terminal does not say where its cursor is.
        env=os.environ | {"PROMPT_TOOLKIT_NO_CPR": "1"},
    )
    asked: set[str] = set()
    # The escape sequence ends the question's colour.
    while child.expect([r"Overwrite (\S+)\? \x1b\[0m\(Y/n\)", pexpect.EOF]) == 0:
        assert isinstance(child.match, re.Match)
        file: str = child.match[1]
        asked.add(file)
        child.send("y" if say(file) else "n")
    child.close()
    assert child.exitstatus == 0
    return asked


def apply(diff: str, file: Path) -> None:
    """Edit a file as a person would who reads a diff; an empty line parts its pieces."""
    text = file.read_text()
    for piece in diff.split("\n\n"):
        lines = piece.splitlines()
        old = "".join(f"{line[1:]}\n" for line in lines if line[0] != "+")
        new = "".join(f"{line[1:]}\n" for line in lines if line[0] != "-")
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    file.write_text(text)


def test_copier_asks_for_every_file_that_both_have(repository: Path, template: Path) -> None:
    """Who answers no has every file of theirs as it was, and the template's beside them."""
    asked = copy(repository, template, lambda file: False)

    assert asked == SHARED
    assert {name: (repository / name).read_text() for name in THEIRS} == THEIRS
    assert (repository / "src" / "flight_delays" / "pipeline.py").is_file()


def test_yes_takes_the_template_for_that_file_only(repository: Path, template: Path) -> None:
    copy(repository, template, lambda file: file in YES)

    kept = {name for name, text in THEIRS.items() if (repository / name).read_text() == text}
    assert kept == set(THEIRS) - YES
    assert 'name = "flight-delays"' in (repository / "pyproject.toml").read_text()


def test_without_a_terminal_nothing_is_overwritten(repository: Path, template: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "copier", "copy", "--defaults", str(template), "."],
        cwd=repository,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert "Interactive session required" in done.stderr
    assert {name: (repository / name).read_text() for name in THEIRS} == THEIRS
    git(repository, "clean", "--force", "-d", "--quiet")
    assert git(repository, "status", "--porcelain") == ""


def test_the_guide_answers_yes_for_the_files_that_it_merges() -> None:
    [row] = [line for line in GUIDE.splitlines() if "| y |" in line]

    assert set(re.findall(r"`([^`]+)`", row)) == YES


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_repository_that_followed_the_guide_runs_and_updates(
    template: Path, tmp_path: Path
) -> None:
    """Every command and every edit of the guide, as they stand; then the template's next release.

    Of the tests only the repository's own and the guards of DAGs run: render/test_scaffolds.py
    runs the others.
    """
    repository = make_repository(tmp_path / "repository")
    releases = tmp_path / "releases"
    git(tmp_path, "clone", "--quiet", str(template), str(releases))
    project = Project(repository, "flight_delays", find_python("3.11"), {})
    files = iter(("pyproject.toml", "dags/cleanup.py"))
    printed = []
    for language, text in BLOCK.findall(GUIDE):
        if language == "diff":
            apply(text, repository / next(files))
            continue
        for line in text.splitlines():
            if "copier copy" in line:
                assert copy(repository, releases, lambda file: file in YES) == SHARED - {
                    "tests/conftest.py"
                }
            else:
                printed.append(shell(line.removeprefix("$ "), project))
    assert next(files, None) is None

    for tested in ("test_parcels/test_parcels.py::", "orchestration/test_dags.py::test_guard_"):
        assert f"PASSED tests/{tested}" in "".join(printed)
    assert "promoted: version 1 is champion" in " ".join("".join(printed).split())
    assert project.mlflow()["aliases"] == {"champion": 1}
    assert git(repository, "status", "--porcelain") == ""
    assert "Seven versions of parcels" in git(repository, "log")

    release(releases)
    shell("uv run poe update", project)

    assert "_commit: v0.2.0" in (repository / ".copier-answers.yml").read_text()
    readme = (repository / "README.md").read_text()
    assert readme.startswith(THEIRS["README.md"])
    assert "## All commands" in readme
    pyproject = (repository / "pyproject.toml").read_text()
    assert all(part in pyproject for part in ('"rich>=14,<17"', "inflection", '"parcels"]'))
    assert {"*.parcel", "/more/"} <= set((repository / ".gitignore").read_text().split())
    kept = ("LICENSE", "src/parcels/__init__.py", "notes/2019.txt")
    assert all((repository / name).read_text() == THEIRS[name] for name in kept)
    assert "default_args=DEFAULT_ARGS" in (repository / "dags" / "cleanup.py").read_text()


def shell(line: str, project: Project) -> str:
    """Run one of the guide's commands in the repository, and return what it prints."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=project.path,
        env=os.environ
        | {
            "UV_PYTHON": project.python,
            "PYTEST_ADDOPTS": "-rp -k 'parcels or (test_dags and guard)'",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout[-6000:]}"
    return done.stdout


def release(template: Path) -> None:
    """Release a version of the template that changes what the repository merged."""
    for name, old, new in (
        ("README.md.jinja", "## Commands", "## All commands"),
        ("pyproject.toml.jinja", '"rich>=14,<16"', '"rich>=14,<17"'),
        (".gitignore", "/backups/\n", "/backups/\n/more/\n"),
    ):
        file = template / "template" / name
        text = file.read_text()
        assert text.count(old) == 1, name
        file.write_text(text.replace(old, new))
    git(template, "commit", "--quiet", "--all", "--message=Next")
    git(template, "tag", "v0.2.0")
