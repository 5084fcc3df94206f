"""The command line: its help, what it takes and prints, and how it fails."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import polars as pl
import pytest
import sandbox
from flight_delays import pipeline
from flight_delays.cli import app as cli
from flight_delays.core.errors import (
    BadInput,
    DataRejected,
    MissingPartitions,
    NoChampion,
    PipelineError,
    SettingsError,
)
from sandbox import Trained
from typer.testing import CliRunner, Result

DAY = sandbox.PARTITION
COMMANDS = [
    *("run", "stage", "score", "data", "rollback", "champion", "doctor", "update", "alert"),
    "stack",
]


def invoke(*arguments: str, text: str | None = None) -> Result:
    """Run the command line in this process; an error that it does not expect is raised."""
    runner = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
    return runner.invoke(cli.app, arguments, input=text, catch_exceptions=False)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command line as a shell does; returns the exit code."""
    monkeypatch.setattr(sys, "argv", ["pipeline", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    code = caught.value.code
    return code if isinstance(code, int) else 0


def stage(name: str, *arguments: Any, **named: Any) -> dict[str, Any]:
    """Run a stage through its JSON and return the reference it printed."""
    result = invoke("stage", name, json.dumps(named or list(arguments)))
    assert result.exit_code == 0
    reference: dict[str, Any] = json.loads(result.stdout)
    return reference


def test_help_names_every_command(project: Path) -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    for command in COMMANDS:
        assert f" {command} " in result.stdout


def commands() -> Iterator[tuple[str, ...]]:
    """Yield what each command is called with."""
    groups = [(group.name, group.typer_instance) for group in cli.app.registered_groups]
    for name, app in [("", cli.app), *groups]:
        for command in app.registered_commands if app else ():
            assert command.callback
            yield *filter(None, [f"{name}"]), command.name or command.callback.__name__


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_help_shows_examples(project: Path, command: tuple[str, ...]) -> None:
    result = invoke(*command, "--help")
    assert result.exit_code == 0
    assert "Example" in result.stdout
    assert " ".join(command) in result.stdout.split("Example")[1]


@pytest.mark.parametrize(
    "arguments",
    [["run"], ["run", "serving"], ["stage", "ingest", "{"], ["stage", "ingest", "7"], ["what"]],
)
def test_a_wrong_call_is_a_usage_error(project: Path, arguments: list[str]) -> None:
    assert invoke(*arguments).exit_code == 2


def test_run_shows_the_result_and_where_to_look(small: Path) -> None:
    result = invoke("run", "training", "--partition", f"{DAY}")
    assert result.exit_code == 0
    for text in ("linear", sandbox.PRIMARY, "version 1 is champion", ".html", "/runs/"):
        assert text in result.stdout
    assert sandbox.registry().champion == 1


def test_stages_pass_references_as_json(small: Path) -> None:
    run = stage("start", pipeline="training", partition=f"{DAY}", key="by-hand")
    assert run["key"] == "by-hand"
    raw = stage("ingest", run)
    valid = stage("validate", run, raw)
    features = stage("featurize", run=run, dataset=valid)
    assert features["rows"] > 0
    candidate = stage("train", run, features, "linear")
    challenger = stage("select", run, [candidate])
    evaluation = stage("evaluate", run, features, challenger)
    promotion = stage("promote", run, evaluation)
    assert promotion["champion_version"] == 1
    assert stage("report", run)["succeeded"]


def test_a_stage_reads_standard_input_and_prints_nothing_but_its_reference(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chatty(*args: Any, **kwargs: Any) -> list[str]:
        print("a library prints")
        return [DAY]

    monkeypatch.setattr("flight_delays.stages.start.newest_partition", lambda _: chatty()[-1])
    result = invoke("stage", "start", "-", text='{"pipeline": "training"}')
    assert json.loads(result.stdout)["partition"] == f"{DAY}"
    assert "a library prints" in result.stderr


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        (
            "ingest",
            '[{"pipeline": "training"}]',
            "stage 'ingest' cannot take run as Run: run.partition: Field",
        ),
        (
            "ingest",
            "[RUN, 1]",
            "stage 'ingest' cannot take window: window: Input should be 'normal' or 'wider'",
        ),
        ("ingest", "[RUN, null, null]", "stage 'ingest': too many positional arguments"),
        (
            "validate",
            '[RUN, {"rows": "x"}]',
            "cannot take raw as DatasetRef: raw.uri: Field required; raw.rows: Input",
        ),
    ],
)
def test_arguments_of_a_stage_that_do_not_fit_are_named(
    tracked: Path, name: str, arguments: str, said: str
) -> None:
    run = json.dumps(stage("start", pipeline="training"))
    with pytest.raises(PipelineError, match=re.escape(said)):
        invoke("stage", name, arguments.replace("RUN", run))


@pytest.mark.parametrize("suffixes", [".parquet .csv", ".csv .parquet"])
def test_score_predicts_the_rows_of_a_file(trained: Trained, tmp_path: Path, suffixes: str) -> None:
    of_source, of_target = suffixes.split()
    rows = sandbox.sample().drop("arr_delay")
    source, target = tmp_path / f"rows{of_source}", tmp_path / "new" / f"predictions{of_target}"
    rows.write_csv(source) if of_source == ".csv" else rows.write_parquet(source)
    result = invoke("score", str(source), str(target))
    assert f"{rows.height} rows predicted by version 1, 0 left out as invalid" in result.stdout
    found = pl.read_csv(target) if of_target == ".csv" else pl.read_parquet(target)
    assert found.height == rows.height
    assert found["prediction"].null_count() == 0
    assert found["flight"].to_list() == rows["flight"].to_list()


def test_score_reads_a_path_below_the_folder_it_is_called_in(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sandbox.sample().write_parquet("rows.parquet")
    invoke("score", "rows.parquet", "predictions.csv")
    assert pl.read_csv("predictions.csv").height == sandbox.sample().height


def test_score_never_writes_over_the_rows_it_reads(trained: Trained, tmp_path: Path) -> None:
    source, link = tmp_path / "rows.parquet", tmp_path / "link.parquet"
    sandbox.sample().write_parquet(source)
    link.symlink_to(source)
    before = source.read_bytes()
    for target in (source, link):
        with pytest.raises(BadInput, match="holds the rows to predict: name another file"):
            invoke("score", str(source), str(target))
    assert source.read_bytes() == before


def test_score_leaves_out_rows_that_break_the_contract(trained: Trained, tmp_path: Path) -> None:
    rows = sandbox.sample()
    first = pl.int_range(pl.len()) < 1
    bad = pl.when(first).then(pl.lit("??")).otherwise(pl.col("carrier")).alias("carrier")
    rows.with_columns(bad).write_parquet(tmp_path / "rows.parquet")
    result = invoke("score", str(tmp_path / "rows.parquet"), str(tmp_path / "out.csv"))
    assert f"{rows.height - 1} rows predicted by version 1, 1 left out" in result.stdout


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"PAR1 cut off", "unreadable_file"),
        (b"", "unreadable_file"),
        (sandbox.as_parquet(sandbox.sample().drop("distance")), "missing_column: distance"),
        (sandbox.as_parquet(sandbox.sample().clear()), "too_few_rows: 0 rows"),
    ],
)
def test_score_rejects_a_bad_file(
    trained: Trained, tmp_path: Path, content: bytes, problem: str
) -> None:
    source, target = tmp_path / "rows.parquet", tmp_path / "out.csv"
    source.write_bytes(content)
    with pytest.raises(DataRejected, match=problem):
        invoke("score", str(source), str(target))
    assert not target.exists()


def test_score_takes_parquet_and_csv_only(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.xlsx").touch()
    assert call(monkeypatch, "score", str(tmp_path / "rows.xlsx"), "out.csv") == 1
    assert call(monkeypatch, "score", str(tmp_path / "missing.csv"), "out.csv") == 2


def test_data_lists_the_partitions(project: Path, tmp_path: Path) -> None:
    days = ["2013-01-01", "2013-01-02"]
    with sandbox.enter(project, sandbox.source_of(tmp_path / "source", days)):
        result = invoke("data")
    assert result.exit_code == 0
    assert "2 partitions" in " ".join(result.stdout.split())
    assert all(f"{day}" in result.stdout for day in days)
    with (
        sandbox.enter(project, {"DATA__SOURCE": "nowhere"}),
        pytest.raises(MissingPartitions, match="no partition at 'nowhere'"),
    ):
        invoke("data")


def test_an_expected_error_is_one_clear_sentence(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "rollback") == 1
    shown = " ".join(capsys.readouterr().err.split())
    assert "error: NoChampion: model 'sandbox' has no champion" in shown
    assert "Traceback" not in shown
    assert call(monkeypatch, "run", "inference", "--partition", "yesterday") == 1
    shown = " ".join(capsys.readouterr().err.split())
    assert "partition 'yesterday' is not a day like 2026-01-28" in shown


def test_rollback_needs_a_previous_champion(trained: Trained) -> None:
    with pytest.raises(NoChampion, match="no previous champion"):
        invoke("rollback")


def test_bad_settings_stop_every_command_but_doctor_and_update(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "config" / "pipeline.toml").write_text("[training]\ntrials = 0\n")
    for command in ("data", "rollback"):
        assert call(monkeypatch, command) == 1
        assert "training.trials" in capsys.readouterr().err
    assert call(monkeypatch, "doctor") == 1
    assert "training.trials" in capsys.readouterr().out
    assert call(monkeypatch, "update") == 1
    assert "git status failed" in capsys.readouterr().err


def test_alert_test_fails_when_nobody_is_told(project: Path) -> None:
    result = invoke("alert", "test")
    assert result.exit_code == 1
    assert "no channel is configured" in result.stdout


def test_alert_test_reaches_each_channel(project: Path, inbox: Any) -> None:
    result = invoke("alert", "test")
    assert result.exit_code == 0
    assert "sent through recorder" in result.stdout
    assert [event["kind"] for event in inbox()] == ["test"]


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Put the logging of the tests back."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(False)
    root.handlers[:] = before
    root.setLevel(level)


def fail_with(error: Exception) -> Callable[..., NoReturn]:
    def fail(*arguments: Any, **named: Any) -> NoReturn:
        raise error

    return fail


@pytest.mark.usefixtures("own_logging")
@pytest.mark.parametrize("way", ["option", "setting"])
@pytest.mark.parametrize(
    "error",
    [
        BadInput("no\n'\x1b[31m'"),
        RuntimeError("unexpected\n" + "x" * 1_000_000),
        SettingsError("a"),
    ],
)
def test_the_closing_error_is_an_object_of_the_json_log(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    way: str,
    error: Exception,
) -> None:
    monkeypatch.setattr(pipeline, "execute", fail_with(error))
    if way == "setting":
        monkeypatch.setenv("PIPELINE_LOGGING__JSON_LINES", "true")
        sandbox.clear_caches()
    assert call(monkeypatch, *["--json-logs"][: way == "option"], "run", "training") == 1
    written = capsys.readouterr()
    (line,) = map(json.loads, written.err.splitlines())
    assert line["level"] == "ERROR"
    assert line["message"].startswith(f"{type(error).__name__}: {str(error)[:2]}")
    assert ("Traceback" in line.get("error", "")) == isinstance(error, RuntimeError)
    assert len(written.err) < 100_000
    assert written.out == ""


@pytest.mark.usefixtures("own_logging")
def test_settings_that_cannot_be_read_are_an_object_of_the_json_log(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "config/pipeline.toml").write_text("[training")
    assert call(monkeypatch, "--json-logs", "data") == 1
    (line,) = map(json.loads, capsys.readouterr().err.splitlines())
    assert line["message"].startswith("SettingsError")


@pytest.mark.usefixtures("own_logging")
@pytest.mark.parametrize("error", [BadInput, RuntimeError])
def test_the_closing_error_in_a_terminal_is_short_and_plain(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: type[Exception],
) -> None:
    text = f"of column 'name': \x1b[2J\x00 {'x' * 20_000_000}"
    monkeypatch.setattr(pipeline, "execute", fail_with(error(text)))
    assert call(monkeypatch, "run", "training") == 1
    said = capsys.readouterr().err
    assert "\\x1b[2J\\x00" in said
    assert "characters left out" in said
    assert len(said) < 100_000
