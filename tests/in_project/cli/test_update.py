"""Updating from the template: what stops it is said, and doctor knows how far behind we are."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from flight_delays.cli import doctor, update
from flight_delays.core.checks import Check
from flight_delays.core.errors import UpdateError

ANSWERS = "_commit: v1.0.0\n_src_path: https://me:secret@example.org/template.git\nname: Flights\n"


@pytest.fixture
def answered(project: Path) -> Path:
    """Return the root of a committed project that knows its template."""
    (project / update.ANSWERS).write_text(ANSWERS)
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "Start"]):
        subprocess.run(["git", "-C", project, *command], check=True)
    return project


def template_says(monkeypatch: pytest.MonkeyPatch, code: int, out: str, error: str = "") -> None:
    """Replace Copier, which would go to the network, by its answer."""

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if "copier" not in command:
            return real(command, **options)
        if code:
            raise subprocess.CalledProcessError(code, command, out, error)
        return subprocess.CompletedProcess(command, code, out, error)

    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", run)


def versions(newest: str) -> str:
    behind = newest != "1.0.0"
    return json.dumps(
        {"current_version": "1.0.0", "latest_version": newest, "update_available": behind}
    )


def template_line() -> Check:
    probe = next(probe for probe in doctor.probes() if probe.name == "template")
    (check,) = doctor.ask(probe, 300)
    return check


def test_doctor_says_how_far_behind_the_project_is(
    answered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template_says(monkeypatch, 0, versions("1.4.0"))
    behind = template_line()
    assert behind.detail == "this project is at 1.0.0, and 1.4.0 is out"
    assert behind.fix == "run `uv run poe update`"
    assert behind.ok
    template_says(monkeypatch, 0, versions("1.0.0"))
    assert template_line() == Check("template", True, "1.0.0, the newest")


def test_doctor_does_not_fail_where_the_template_cannot_be_asked(
    answered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template_says(monkeypatch, 1, "", "| fatal: no https://me:secret@example.org/template.git")
    assert template_line() == Check(
        "template",
        True,
        "not compared: the template at https://example.org/template.git cannot be read: "
        "fatal: no https://example.org/template.git",
    )


def test_doctor_does_not_wait_for_a_template_that_hangs(
    answered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(command: list[str], timeout: float, **options: Any) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    found = template_line()
    assert found.ok
    assert "no answer within 6 s" in found.detail


def test_doctor_does_not_fail_without_copier(
    answered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the image, which has no development tools."""
    monkeypatch.setattr(update, "find_spec", lambda name: None)
    found = template_line()
    assert found.ok
    assert "Copier is not installed here: `uv sync` installs it" in found.detail


def test_nothing_happens_when_there_is_nothing_newer(
    answered: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    template_says(monkeypatch, 0, versions("1.0.0"))
    update.update()
    assert capsys.readouterr().out == "already at 1.0.0, there is nothing newer\n"


def test_a_change_that_is_not_committed_stops_it(answered: Path) -> None:
    (answered / "mine.txt").touch()
    with pytest.raises(UpdateError, match=r"commit or stash these first.*\n\?\? mine.txt"):
        update.update()


def test_a_failure_of_copier_is_said_with_the_way_back(
    answered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = update.Versions(current_version="1", latest_version="2", update_available=True)
    monkeypatch.setattr(update, "find_versions", lambda root: newer)
    template_says(monkeypatch, 1, "", "Traceback\nValueError: no such answer\n")
    with pytest.raises(UpdateError, match=r"ValueError: no such answer\n`cd .* && git restore"):
        update.update()


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
    command = ["git", *identity, *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return done.stdout


@pytest.fixture
def monorepo(tmp_path: Path) -> Path:
    """Return a repository with a project in a folder, after an update, beside work of others.

    The update has changed, deleted and added files, and left a conflict; others have staged,
    unstaged and untracked changes.
    """
    root = tmp_path / "repository"
    for name in ("ours/changed", "ours/deleted", "ours/conflict", "theirs/staged", "theirs/edited"):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("before\n")
    git(root, "init", "-q", "-b", "main")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "Start")
    for branch, text in (("other", "one\n"), ("main", "two\n")):
        git(root, "checkout", "-q", "-B", branch, "HEAD" if branch == "other" else "main")
        (root / "ours/conflict").write_text(text)
        git(root, "commit", "-q", "-a", "-m", branch)
    # What Copier leaves in the index of a file that both sides changed, without a merge.
    git(root, "merge", "-q", "other")
    (root / ".git/MERGE_HEAD").unlink(missing_ok=True)
    (root / "ours/changed").write_text("update\n")
    (root / "ours/deleted").unlink()
    (root / "ours/new").mkdir()
    (root / "ours/new/file").write_text("update\n")
    for name in ("staged", "edited", "untracked"):
        (root / "theirs" / name).write_text("work\n")
    git(root, "add", "theirs/staged")
    return root


WORK_OF_OTHERS = "M  theirs/staged\n M theirs/edited\n?? theirs/untracked\n"


def status(root: Path) -> set[str]:
    return set(git(root, "status", "--porcelain").splitlines())


def test_the_way_back_takes_back_the_update_and_nothing_of_others(monorepo: Path) -> None:
    assert "UU ours/conflict" in status(monorepo)
    _, command, _ = update._way_back(monorepo / "ours").split("`")
    subprocess.run(command, shell=True, check=True)
    assert status(monorepo) == set(WORK_OF_OTHERS.splitlines())
    assert (monorepo / "ours/conflict").read_text() == "two\n"
    assert not (monorepo / "ours/new").exists()


def test_the_way_forward_commits_the_update_and_nothing_of_others(
    monorepo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "a")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@example.com")
    monkeypatch.setenv("GIT_EDITOR", "echo Update >")
    (monorepo / "ours/conflict").write_text("both\n")
    subprocess.run(update.COMMIT, shell=True, check=True, cwd=monorepo / "ours")
    assert status(monorepo) == set(WORK_OF_OTHERS.splitlines())
    committed = git(monorepo, "show", "--format=", "--name-only").split()
    assert committed == ["ours/changed", "ours/conflict", "ours/deleted", "ours/new/file"]


def test_git_that_is_missing_is_a_sentence(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UpdateError, match="git is not on PATH: install it"):
        update.update()
