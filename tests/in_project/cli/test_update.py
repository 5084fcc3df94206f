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
    with pytest.raises(UpdateError, match=r"ValueError: no such answer\n.*git reset --hard"):
        update.update()
