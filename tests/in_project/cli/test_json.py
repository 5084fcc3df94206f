"""`--json`: each command that reports prints one object and nothing else."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import sandbox
from flight_delays.cli import app as cli
from flight_delays.cli import champions
from flight_delays.core.settings import load_settings
from flight_delays.sources import require_partitions
from sandbox import Trained
from typer.testing import CliRunner


def told(*arguments: str) -> tuple[int, Any]:
    """Run a command with --json; returns its exit code and the object."""
    done = CliRunner().invoke(cli.app, [*arguments, "--json"], catch_exceptions=False)
    return done.exit_code, json.loads(done.stdout)


def test_data_lists_the_partitions(project: Path) -> None:
    code, found = told("data")
    assert code == 0
    assert found["partitions"] == [f"{one}" for one in require_partitions(load_settings())]


def test_the_champion_and_its_history(trained: Trained) -> None:
    code, found = told("champion", "show")
    assert code == 0
    assert found["champion"]["version"] == "1"
    learned = sandbox.result(trained.run, "select")["trained_until"]
    assert found["champion"]["trained_until"] == learned
    assert found["champion"]["predicts"] == "yes"
    assert 0 < float(found["champion"][f"holdout_{sandbox.PRIMARY}"]) <= 1
    [version] = told("champion", "history")[1]["versions"]
    assert (version["version"], version["alias"]) == ("1", "champion")


def test_without_a_champion(tracked: Path) -> None:
    assert told("champion", "show") == (0, {"champion": None})
    assert told("champion", "history") == (0, {"versions": []})


@pytest.mark.parametrize("command", [("doctor",), ("alert", "test"), ("alert", "flush")])
def test_checks(project: Path, command: tuple[str, ...]) -> None:
    code, found = told(*command)
    assert (code == 0) is found["ok"]
    assert found["ok"] is all(check["ok"] for check in found["checks"])
    for check in found["checks"]:
        assert check.keys() == {"name", "ok", "detail", "fix"}


def test_no_command_that_reports_is_without_it() -> None:
    """A new command has the option, or stands here with the reason."""
    others = {
        # They show a run as it goes, change something, or print what a program reads already.
        *("configure", "run", "stage", "score", "onboard", "update"),
        *("rollback", "retire", "promote"),
    }
    commands = [*cli.app.registered_commands, *cli.alert_app.registered_commands]
    commands += champions.app.registered_commands
    lacking = {
        command.callback.__name__
        for command in commands
        if command.callback and "as_json" not in inspect.signature(command.callback).parameters
    }
    assert lacking - others == set()
