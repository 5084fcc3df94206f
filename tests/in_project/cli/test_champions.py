"""`champion show | history | retire | promote`: in any state there is."""

from __future__ import annotations

import shutil
from pathlib import Path
from unittest import mock

import mlflow.artifacts
import pytest
import sandbox
from example.domain import features as domain
from flight_delays import pipeline
from flight_delays.cli import app as cli
from flight_delays.cli import champions
from flight_delays.core import registry, tracking
from flight_delays.core.errors import BadInput
from rich.console import Console
from sandbox import Trained
from typer.testing import CliRunner, Result


def champion(*arguments: str, answer: str | None = None) -> Result:
    """Run a command of `champion`; like `invoke`."""
    return invoke("champion", *arguments, answer=answer)


def invoke(*given: str, answer: str | None = None) -> Result:
    """Run a command in this process; an error that it does not expect is raised."""
    runner = CliRunner(env={"NO_COLOR": "1", "TERM": "dumb"})
    # What is imported before may have fixed the width.
    with mock.patch.object(champions, "out", Console(width=250)):
        return runner.invoke(cli.app, given, input=answer, catch_exceptions=False)


@pytest.fixture
def registered(tracked: Path) -> Path:
    """Return a project with versions 1 and 2, which no run has trained, and 2 is champion."""
    client, name = tracking.client(), registry.model_name()
    client.create_registered_model(name)
    for number in (1, 2):
        client.create_model_version(name, "file:///no", tags={"candidate": f"made by {number}"})
        registry.promote(number)
    return tracked


def test_without_a_model_each_command_says_how_to_get_one(tracked: Path) -> None:
    for command in ("show", "history", "retire"):
        done = champion(command)
        assert done.exit_code == 0
        assert "`uv run poe run` trains one" in done.stdout
    with pytest.raises(BadInput, match="has no version 1; there are: none"):
        champion("promote", "1")


def test_show_describes_a_champion_that_predicts(trained: Trained) -> None:
    lines = [" ".join(line.split()) for line in champion("show").stdout.splitlines()]
    assert "version 1" in lines
    assert f"trained until {sandbox.day(-7)}" in lines
    assert "predicts yes" in lines
    said = "\n".join(lines)
    for text in ("champion since", f"passed the gates in {trained.run.key}", "/#/runs/"):
        assert text in said
    assert f"holdout_{sandbox.PRIMARY}" in said


def test_show_says_why_a_champion_does_not_predict(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = domain.features
    monkeypatch.setattr(domain, "FEATURES", domain.FEATURES[1:])
    monkeypatch.setattr(domain, "features", lambda rows: kept(rows).drop("departure_hour"))
    sandbox.clear_caches()
    said = " ".join(champion("show").stdout.split())
    assert "predicts no: version 1, the champion, cannot predict: it was trained on" in said
    assert "'departure_hour'" in said


def test_show_and_history_need_neither_the_run_nor_the_files(registered: Path) -> None:
    assert "it cannot be loaded" in champion("show").stdout
    lines = champion("history").stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["2", "champion"], ["1", "previous"]]
    assert "chosen by a person after version 1" in lines[1]


def test_history_says_what_became_of_each_version(registered: Path) -> None:
    tracking.client().create_model_version(registry.model_name(), "file:///no")
    registry.rollback()
    newest, second, first = champion("history").stdout.splitlines()[1:]
    assert "never" in newest
    assert "previous" in second
    assert "taken back" in second
    assert "put back after version 2 by a rollback" in first


def test_retire_asks_and_no_run_gives_the_title_back(registered: Path) -> None:
    kept = champion("retire", answer="n\n")
    assert kept.exit_code == 1
    assert registry.versions() == (2, 1)
    done = champion("retire", "--yes")
    assert "version 2 is champion no more" in done.stdout
    assert registry.versions() == (None, None)
    assert registry.is_withdrawn(2)


def test_a_version_that_was_taken_back_or_cannot_predict_needs_force(registered: Path) -> None:
    registry.rollback()
    with pytest.raises(BadInput, match=r"version 2 was taken back on .*: --force"):
        champion("promote", "2")
    assert "version 2 is champion" in champion("promote", "2", "--force").stdout
    assert registry.versions() == (2, 1)
    for command in (["champion", "promote", "1"], ["rollback"]):
        with pytest.raises(BadInput, match=r"version 1 cannot predict: it cannot be loaded"):
            invoke(*command)
        assert registry.versions() == (2, 1)
    assert invoke("rollback", "--force").exit_code == 0
    assert registry.versions() == (1, 2)


def test_who_goes_back_to_an_older_version_is_told_that_the_newer_one_stays_back(
    registered: Path,
) -> None:
    said = champion("promote", "1", "--force").stdout
    assert "version 2 is kept as previous, and no run makes it champion again" in said
    newest, _ = champion("history").stdout.splitlines()[1:]
    assert "taken back" in newest


def test_a_version_that_predicts_is_promoted_without_a_question(small: Path) -> None:
    pipeline.execute("training", sandbox.PARTITION)
    registry.retire()
    assert champion("promote", "1").stdout.strip() == "version 1 is champion"
    shutil.rmtree(mlflow.artifacts.download_artifacts("models:/sandbox/1"))
    assert "predicts" in champion("show").stdout
