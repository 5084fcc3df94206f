"""`prune`: what goes, what stays, and that everything works afterwards."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from unittest import mock

import pytest
import sandbox
from flight_delays import pipeline
from flight_delays.cli import app as cli
from flight_delays.cli import prune as command
from flight_delays.core import purge, registry, storage, tracking
from flight_delays.core.errors import StoreError
from flight_delays.core.refs import Run
from flight_delays.stages.score import prove
from fsspec.implementations.local import LocalFileSystem
from mlflow.entities import ViewType
from rich.console import Console
from typer.testing import CliRunner
from upath import UPath


@dataclass(frozen=True)
class Used:
    """A project that was used for a while.

    Attributes:
        first: The run whose model became champion, and was replaced.
        loser: Passed no gate.
        scored: Has scored a partition.
        last: The last one of each pipeline: the champion's, and one that scored.
    """

    root: Path
    first: Run
    loser: Run
    scored: Run
    last: tuple[Run, Run]


@pytest.fixture(scope="module")
def used_once(tmp_path_factory: pytest.TempPathFactory, tables: Path) -> Used:
    """Train three times and score twice, for all tests."""
    root = sandbox.make(tmp_path_factory.mktemp("used") / "project", tables)

    def run(pipeline_name: Any, days: int, **variables: str) -> Run:
        with sandbox.enter(root, sandbox.SMALL | variables):
            return pipeline.execute(pipeline_name, sandbox.day(days))

    first = run("training", -3)
    loser = run("training", -10, **sandbox.OUT_OF_REACH)
    champion = run("training", -1, **sandbox.ALWAYS_BETTER)
    return Used(root, first, loser, run("inference", 1), (champion, run("inference", 2)))


@pytest.fixture
def used(used_once: Used, tmp_path: Path) -> Iterator[Used]:
    """Enter a copy of the project that was used."""
    root = tmp_path / "project"
    shutil.copytree(used_once.root, root)
    with sandbox.enter(root, sandbox.SMALL):
        yield Used(root, *list(used_once.__dict__.values())[1:])


@pytest.fixture
def no_command(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Only note what `mlflow gc` would be given, which takes seconds."""
    given: list[str] = []
    monkeypatch.setattr(purge, "_collect", given.extend)
    return given


def prune(*arguments: str) -> dict[str, Any]:
    """Run the command in this process; returns what it prints as JSON."""
    given = ["prune", "--json", *arguments]
    done = CliRunner().invoke(cli.app, given, catch_exceptions=False)
    assert done.exit_code == 0
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def said_to(*arguments: str) -> str:
    """Run the command in this process; returns what people read."""
    with mock.patch.object(command, "out", Console(width=250)):
        done = CliRunner(env={"NO_COLOR": "1", "TERM": "dumb"}).invoke(
            cli.app, ["prune", *arguments], catch_exceptions=False
        )
    return " ".join(done.stdout.split())


def numbers(said: dict[str, Any]) -> dict[str, int]:
    """Return how many went of each kind."""
    return {row["kind"]: row["number"] for row in said["removed"]}


def stored() -> set[str]:
    """Return the addresses of all artefacts."""
    root = storage.artifact_path()
    found = {f"{path.relative_to(root)}" for path in root.rglob("*") if path.is_file()}
    return {one for one in found if not one.startswith(".tmp")}


def tracked(view: int = ViewType.ACTIVE_ONLY) -> set[str]:
    """Return the keys of the runs that MLflow holds."""
    found = tracking.client().search_runs([tracking.experiment_id()], "", view)
    return {run.data.tags[tracking.RUN_KEY_TAG] for run in found}


def leads_nowhere(before: set[str]) -> set[str]:
    """Return what was there before, is gone, and is still named by a file."""
    there = stored()
    kept = [storage.path_of(one).read_text() for one in there if one.endswith(".json")]
    named = {name for text in kept for name in re.findall(r'"([^"]+/[^"]+)"', text)}
    folders = {one.rpartition("/")[0] for one in there}
    gone = before | {one.rpartition("/")[0] for one in before if one.startswith("evaluations/")}
    return {one for one in named & gone if one not in there | folders}


def make_old(run: Run, days: int = 100) -> None:
    """Let a run, and what it alone has written, be older than it is."""
    then = time.time() - 86_400 * days
    keys = (run.key, f"{run.partition}")
    for address in stored():
        if any(key in address for key in keys):
            os.utime(str(storage.path_of(address)), (then, then))
    for one in [*sandbox.children(run), tracking.client().get_run(run.tracking_run_id)]:
        tracking.client().set_terminated(one.info.run_id, end_time=int(1000 * then))


def test_help_shows_examples(project: Path) -> None:
    said = said_to("--help").split("Example")[1]
    assert "prune --dry-run" in said
    assert "prune --keep-days 30" in said


def test_a_new_project_has_nothing_to_remove(tracked: Path) -> None:
    assert said_to() == "nothing removed: older than 90 days"


# Runs of all kinds after it, however busy the machine is.
@pytest.mark.timeout(900)
def test_everything_works_after_all_that_can_go_has_gone(used: Used) -> None:
    before, predictions = stored(), {one for one in stored() if one.startswith("predictions/")}
    models = used.root / "var" / "mlflow" / "artifacts" / "models"
    size = sum(one.stat().st_size for one in models.parent.rglob("*") if one.is_file())
    removed = prune("--keep-days", "0")
    # The runs of the loser with its candidate in two windows, and of what was scored.
    assert numbers(removed)["runs"] == numbers(removed)["reports"] == 2
    assert numbers(removed)["MLflow runs"] == 4
    gone = (used.loser.key, used.scored.key)
    assert not [one for one in stored() if any(key in one for key in gone)]
    assert tracked() == tracked(ViewType.ALL) == {one.key for one in (used.first, *used.last)}
    assert len(list(models.iterdir())) == 2
    left = sum(one.stat().st_size for one in models.parent.rglob("*") if one.is_file())
    [row] = [row for row in removed["removed"] if row["kind"] == "MLflow runs"]
    assert size - left == row["bytes"] > 0
    assert predictions <= stored()
    assert leads_nowhere(before) == set()
    folders = (used.root / "var" / "artifacts").glob("[a-z]*/*/")
    assert all(any(one.iterdir()) for one in folders if one.is_dir())
    # Nothing that a registered version was made of is gone.
    assert [prove(version) for version in registry.registered()] == [True, True]
    for run in (used.first, *used.last):
        results = [one.result or {} for one in sandbox.records(run).values()]
        uris = [one["uri"] for one in results if "uri" in one]
        assert uris
        assert all(storage.path_of(uri).exists() for uri in uris)
        manifests = [uri for uri in uris if uri.startswith("datasets/")]
        files = [file for uri in manifests for file in storage.read_manifest(uri)]
        assert all(storage.path_of(file.uri).exists() for file in files)

    assert prune("--keep-days", "0")["removed"] == []
    run = pipeline.execute("inference", sandbox.day(3))
    assert sandbox.result(run, "score")["model_version"] == 2
    monitoring = sandbox.result(run, "monitor")
    assert monitoring["live_metrics"]
    assert monitoring["drift"]["not_compared"] == []
    assert registry.rollback() == (1, 2)
    assert registry.is_withdrawn(2)
    prune("--keep-days", "0")
    assert registry.is_withdrawn(2)
    again = pipeline.execute("training", sandbox.day(-2))
    assert sandbox.result(again, "report")["succeeded"]


def test_what_is_younger_stays(used: Used, no_command: list[str]) -> None:
    before = stored()
    assert prune()["removed"] == []
    make_old(used.loser)
    with sandbox.enter(used.root, sandbox.SMALL | {"STORAGE__KEEP_DAYS": "110"}):
        assert prune()["removed"] == []
    assert stored() == before
    assert numbers(prune())["MLflow runs"] == 3
    assert used.loser.key not in tracked()
    assert used.scored.key in tracked()
    assert leads_nowhere(before) == set()


def test_a_dry_run_says_the_same_and_removes_nothing(used: Used, no_command: list[str]) -> None:
    before = stored(), tracked()
    planned = prune("--keep-days", "0", "--dry-run")
    assert "would go: older than 0 days" in said_to("--keep-days", "0", "--dry-run")
    assert (stored(), tracked()) == before
    assert not no_command
    assert prune("--keep-days", "0") == planned | {"dry_run": False}


def test_the_table_shows_kind_number_size_and_times(used: Used) -> None:
    said = said_to("--keep-days", "0", "--dry-run")
    assert "kind number size oldest newest" in said
    assert re.search(r"runs 2 [\d.]+ kB \d{4}-\d\d-\d\d \d\d:\d\d \d{4}-\d\d-\d\d \d\d:\d\d", said)


@pytest.mark.parametrize("kind", ["runs", "reports", "datasets", "features", "raw"])
def test_a_prune_that_is_killed_is_finished_by_the_next(
    used: Used, no_command: list[str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    before, remove = stored(), LocalFileSystem.rm

    def half(self: LocalFileSystem, paths: list[str]) -> None:
        is_last = f"/artifacts/{kind}/" in paths[0]
        remove(self, paths[: len(paths) // 2] if is_last else paths)
        if is_last:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LocalFileSystem, "rm", half)
        with pytest.raises(KeyboardInterrupt):
            command.prune(keep_days=0)
    assert leads_nowhere(before) == set()
    prune("--keep-days", "0")
    assert numbers(prune("--keep-days", "0")) in ({}, {"MLflow runs": 4})
    assert tracked() == {one.key for one in (used.first, *used.last)}
    assert not [one for one in stored() if used.loser.key in one or used.scored.key in one]
    assert prove(registry.require_champion())


def test_a_prune_that_is_killed_in_mlflow_is_finished_by_the_next(
    used: Used, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, seen = tracking.client(), 0
    delete = client.delete_run

    def once(run_id: str) -> None:
        nonlocal seen
        seen += 1
        delete(run_id)
        if seen == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(client, "delete_run", once)
        with pytest.raises(KeyboardInterrupt):
            command.prune(keep_days=0)
    failed = CompletedProcess([], 1, "", "OperationalError: database is locked\n[SQL: …]\n")
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", lambda *_, **__: failed)
        with pytest.raises(StoreError, match="failed, so prune again: OperationalError: database"):
            command.prune(keep_days=0)
    given: list[str] = []
    monkeypatch.setattr(purge, "_collect", given.extend)
    assert numbers(prune("--keep-days", "0"))["MLflow runs"] == 4
    found = client.search_runs([tracking.experiment_id()], "", ViewType.DELETED_ONLY)
    assert set(given) == {run.info.run_id for run in found}
    assert tracked() == {one.key for one in (used.first, *used.last)}


def test_a_broken_record_is_left_alone_and_named(used: Used, no_command: list[str]) -> None:
    record = f"runs/{used.loser.key}/validate.json"
    path = storage.path_of(record)
    path.write_text(path.read_text()[:-20])
    before = stored()
    said = prune("--keep-days", "0")
    assert said["left_alone"] == [record]
    assert used.loser.key in tracked()
    assert {one for one in before if used.loser.key in one} <= stored()
    assert leads_nowhere(before) == set()
    assert used.scored.key not in tracked()
    text = said_to("--keep-days", "0")
    assert f"left alone, with its run: {record} cannot be read" in text


def test_a_run_that_goes_on_keeps_what_it_has_and_may_take(
    used: Used, no_command: list[str]
) -> None:
    run = Run(pipeline="training", partition=sandbox.day(-2), key="goes-on", tracking_run_id="")
    tracking.open_run(run)
    raw = {one for one in stored() if one.startswith("raw/")}
    # Nobody has recorded it yet.
    written = storage.write_text(storage.artifact_path("features", run.partition, "new"), "rows")
    prune("--keep-days", "0")
    assert raw | {written} <= stored()
    assert "goes-on" in tracked()
    assert used.loser.key not in tracked()


def test_whoever_registered_a_model_keeps_its_run(used: Used, no_command: list[str]) -> None:
    [model, *_] = sandbox.result(used.loser, "select")["model_uri"].splitlines()
    tracking.client().create_registered_model("another")
    tracking.client().create_model_version("another", model)
    before = stored()
    prune("--keep-days", "0")
    assert used.loser.key in tracked()
    assert leads_nowhere(before) == set()
    assert registry.load_model("models:/another/1")


def test_a_server_is_told_and_its_operator_frees_the_space(
    used: Used, no_command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge, "store_file", lambda: None)
    assert "its operator runs `mlflow gc` there" in said_to("--keep-days", "0")
    assert not no_command
    assert used.loser.key not in tracked()
    assert used.loser.key in tracked(ViewType.ALL)
    assert prune("--keep-days", "0") == {
        "dry_run": False,
        "keep_days": 0,
        "removed": [],
        "left_alone": [],
        "note": "",
    }


def test_a_deleted_experiment_of_somebody_else_is_not_removed(
    used: Used, no_command: list[str]
) -> None:
    client = tracking.client()
    client.delete_experiment(client.create_experiment("another"))
    assert "would also remove its deleted experiments" in prune("--keep-days", "0")["note"]
    assert not no_command
    assert prune("--keep-days", "0")["removed"] == []


def test_another_mlflow_does_not_say_what_is_needed(used: Used, tables: Path) -> None:
    shutil.copy(tables, used.root / "var" / "mlflow" / "mlflow.db")
    sandbox.clear_caches()
    before = stored()
    with pytest.raises(StoreError, match="knows none of the 5 runs that are stored"):
        command.prune(keep_days=0)
    assert stored() == before


def test_a_store_of_objects_is_pruned_alike(used: Used, no_command: list[str]) -> None:
    root = UPath("memory://bucket/artifacts")
    local = used.root / "var" / "artifacts"
    for one in stored():
        root.joinpath(one).write_bytes((local / one).read_bytes())
    prune("--keep-days", "0", "--dry-run")
    with sandbox.enter(used.root, sandbox.SMALL | {"STORAGE__ROOT": f"{root}"}):
        planned = numbers(prune("--keep-days", "0", "--dry-run"))
        assert numbers(prune("--keep-days", "0")) == planned
        left = stored()
    root.fs.rm(root.path, recursive=True)
    # MLflow has forgotten the runs by now, and the records are still here.
    prune("--keep-days", "0")
    assert stored() == left
