"""Doctor: a good project passes, and each broken thing is a failed line that says how to fix it."""

from __future__ import annotations

import io
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from flight_delays import interface
from flight_delays.alerts import delivery
from flight_delays.cli import doctor
from flight_delays.core import tracking
from flight_delays.core.checks import Check, Probe, port_probe
from receivers import free_port, silent_server, webhook
from rich.console import Console
from sandbox import Trained

CHANNEL = "def configured(): return True\ndef describe(): {describe}\ndef send(event): {send}\n"
AddChannel = Callable[[str, str], None]


def ask(name: str) -> Check:
    """Run only the probe of that name."""
    probe = next(probe for probe in doctor.probes() if probe.name == name)
    (check,) = doctor.ask(probe, 300)
    return check


def test_a_good_project_passes_and_says_what_is_left_to_do(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine seconds prove nothing.
    for limit in (
        "cli.doctor.CHECK_SECONDS",
        "cli.doctor.TOTAL_SECONDS",
        "core.checks.PROCESS_SECONDS",
    ):
        monkeypatch.setattr(f"flight_delays.{limit}", 300.0)
    checks = doctor.run_checks()
    # Whoever runs the tests may well have something on the usual ports.
    failed = [check for check in checks if not check.ok and not check.name.endswith(" UI")]
    assert failed == []
    names = [check.name for check in checks]
    assert names[:4] == ["settings", "domain", "domain tests", "data"]
    champion = next(check for check in checks if check.name == "champion")
    assert "none yet" in champion.detail
    assert champion.fix == "train one: `uv run poe run`"


def test_it_says_when_the_tests_of_the_domain_are_not_those_of_this_table(project: Path) -> None:
    tests = project / "tests" / "domain"
    tests.mkdir(parents=True)
    (tests / "test_schema.py").write_text('BAD = [("somebody_elses", 0)]')
    left = ask("domain tests")
    assert left.ok
    assert "names a column of the contract" in left.detail
    assert left.fix == "write tests/domain/ for your own table"

    (tests / "test_schema.py").write_text('BAD = [("distance", -1)]')
    assert not ask("domain tests").fix


def test_a_feature_that_is_not_made_is_named_before_a_run(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not ask("domain").fix
    features = interface.load_features()
    changed = features.model_copy(update={"names": (*features.names, "gone")})
    monkeypatch.setattr("flight_delays.interface.load_features", lambda: changed)

    left = ask("domain")

    assert "features() returned no column 'gone', which FEATURES names" in left.detail
    assert left.fix == "correct what is named"

    unused = features.model_copy(update={"stable": (*features.stable, "gone")})
    monkeypatch.setattr("flight_delays.interface.load_features", lambda: unused)
    assert "STABLE_FEATURES names 'gone', which is not among FEATURES" in ask("domain").detail


def test_the_champion_loads_and_predicts(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask("champion").detail == "'sandbox' version 1 loads and predicts"
    monkeypatch.setattr("flight_delays.stages.score.read_reference", lambda _: pl.DataFrame())
    left = ask("champion")
    assert left.ok
    assert "what it learned from is gone, so drift is not measured" in left.detail


def test_it_leaves_nothing_behind_in_the_store(project: Path) -> None:
    assert ask("artefact store").ok
    assert [path for path in (project / "var/artifacts").rglob("*") if path.is_file()] == []


def text(name: str, content: str) -> Callable[[Path], None]:
    """Return a step that writes a file of the project."""

    def write(project: Path) -> None:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(content)

    return write


def mlflow_that_is_down(project: Path) -> None:
    """Name a server that does not run."""
    os.environ["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{free_port()}"


@pytest.mark.parametrize(
    ("name", "break_it", "detail", "fix"),
    [
        (
            "settings",
            text("config/pipeline.toml", "[training]\ntrials = 0\nseeds = 1\n"),
            "training.seeds",
            "correct what is named",
        ),
        ("settings", text("config/pipeline.toml", "[training"), "not readable as TOML", "correct"),
        ("data", text(".env", "PIPELINE_DATA__SOURCE=nowhere"), "'nowhere'", "deliver partitions"),
        (
            "data",
            text(".env", 'PIPELINE_DATA__REFERENCE={"ports": {"source": "data/no.csv"}}'),
            "reference table 'ports' at data/no.csv",
            "correct [data]",
        ),
        (
            "artefact store",
            text(".env", "PIPELINE_STORAGE__ROOT=config/pipeline.toml/below"),
            "NotADirectoryError",
            "you may write",
        ),
        (
            "MLflow",
            mlflow_that_is_down,
            "ConnectError",
            "MLFLOW_TRACKING_URI",
        ),
        (
            "MLflow",
            text("var/mlflow/mlflow.db", "this is no database, but it is long enough"),
            "not a database",
            "MLFLOW_TRACKING_URI",
        ),
        (
            "undelivered alerts",
            text("var/alerts/outbox/slack/1.json", "{}"),
            "slack: 1 left, 1 not readable",
            "uv run poe flush",
        ),
        ("MLflow UI", text(".env", "MLFLOW_PORT=http"), "ValueError", "MLFLOW_PORT"),
    ],
)
def test_a_broken_thing_is_a_failed_line_with_its_fix(
    project: Path, name: str, break_it: Callable[[Path], None], detail: str, fix: str
) -> None:
    break_it(project)
    check = ask(name)
    assert not check.ok
    assert detail in check.detail
    assert fix in check.fix


def test_a_channel_is_passed_failed_or_left_to_configure(add_channel: AddChannel) -> None:
    add_channel("good", CHANNEL.format(describe="return 'to you'", send="pass"))
    add_channel("half", CHANNEL.format(describe="raise ValueError('no host')", send="pass"))
    add_channel("unused", "def configured(): return False")
    assert ask("alerts: good") == Check("alerts: good", True, "to you")
    half = ask("alerts: half")
    assert (half.ok, half.detail) == (False, "ValueError: no host")
    unused = ask("alerts: unused")
    assert unused.ok
    assert ".env" in unused.fix


def test_test_messages_are_sent_only_when_asked_for(
    add_channel: AddChannel, tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = tmp_path / "inbox"
    send = f"open({str(inbox)!r}, 'a').write(event.kind)"
    add_channel("broken", CHANNEL.format(describe="return ''", send="raise ValueError('down')"))
    add_channel("good", CHANNEL.format(describe="return ''", send=send))
    assert "test messages" not in [probe.name for probe in doctor.probes()]
    assert not inbox.exists()
    monkeypatch.setattr(delivery, "FIRST_PAUSE_SECONDS", 1e9)
    probe = next(probe for probe in doctor.probes(send=True) if probe.name == "test messages")
    (check,) = doctor.ask(probe, 300)
    assert inbox.read_text() == "test"
    assert not check.ok
    assert "broken: ValueError: down" in check.detail
    assert check.fix


def test_git_is_advised_until_there_is_a_commit(project: Path) -> None:
    advised = ask("git")
    assert advised.ok
    assert "git init" in advised.fix
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    for command in (["init"], ["add", "config"], [*identity, "commit", "-m", "Start"]):
        subprocess.run(["git", "-C", project, *command], check=True, capture_output=True)
    tracking._git_commit.cache_clear()
    assert ask("git").detail.startswith("commit ")


def test_git_that_is_missing_is_advised(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    advised = ask("git")
    assert advised.ok
    assert "not on PATH" in advised.detail
    assert "install git" in advised.fix


def test_a_port_is_free_ours_or_somebody_elses(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def state(port: int, answer: str) -> Check:
        monkeypatch.setenv("SOME_PORT", f"{port}")
        (check,) = port_probe("UI", "SOME_PORT", 5000, "/health", answer).checks()
        return check

    port = free_port()
    assert state(port, "OK").detail == f"port {port} is free"
    with webhook(answer=b"OK") as server:
        port = int(server.url.split(":")[2].split("/")[0])
        assert "already running" in state(port, "OK").detail
        detail = state(port, "metadatabase").detail
        assert f"(process {os.getpid()}) listens on port {port}" in detail
    with silent_server(b"\x00\xff") as port:
        check = state(port, "OK")
        assert f"(process {os.getpid()}) listens" in check.detail
        assert "SOME_PORT" in check.fix


def test_a_probe_that_hangs_is_left_behind() -> None:
    def hang() -> str:
        time.sleep(9)
        return "too late"

    started = time.monotonic()
    (check,) = doctor.ask(Probe("slow", "be patient", hang), 0.2)
    assert time.monotonic() - started < 2
    assert not check.ok
    assert check.detail == "no answer within 0.2 s"


def test_no_secret_is_in_a_line(project: Path) -> None:
    def fail() -> str:
        raise ConnectionError("postgresql://me:swordfish@db/flights refused")

    (check,) = doctor.ask(Probe("database", "start it", fail), 300)
    assert check.detail == "ConnectionError: postgresql://me:***@db/flights refused"


def test_the_table_shows_details_and_fixes_as_they_are() -> None:
    checks = [
        Check("good", True, "fine"),
        Check("advice", True, "so so", "do this"),
        Check("bad", False, "[red]not markup[/red]", "do that"),
    ]
    console = Console(file=io.StringIO(), width=100)
    console.print(doctor.render(checks))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    lines = [" ".join(line.split()) for line in shown.splitlines()[1:]]
    assert lines == [
        "✓ good fine",
        "! advice so so",
        "→ do this",
        "✗ bad [red]not markup[/red]",
        "→ do that",
    ]
