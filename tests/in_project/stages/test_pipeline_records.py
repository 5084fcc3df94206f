"""Both pipelines: what they record, repeat and report."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sandbox
from flight_delays import pipeline
from flight_delays.core import storage, tracking
from flight_delays.core.errors import (
    MissingPartitions,
)
from flight_delays.core.refs import (
    CandidateRef,
    EvaluationRef,
    FeaturesRef,
    ReportRef,
)
from flight_delays.reporting.terminal import print_result
from flight_delays.stages.start import start
from mlflow.models import get_model_info
from rich.console import Console
from sandbox import Trained

Inbox = Callable[[], list[dict[str, Any]]]
CANDIDATES = ["linear", "random_forest", "xgboost"]


def test_the_parent_run_holds_everything_needed_to_repeat_it(trained: Trained) -> None:
    parent = tracking.client().get_run(trained.run.tracking_run_id)
    commit = subprocess.run(
        ["git", "-C", trained.root, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    assert parent.info.status == "FINISHED"
    assert parent.data.params["training.trials"] == "1"
    assert parent.data.params["training.seed"] == "7"
    assert parent.data.tags["mlflow.source.git.commit"] == commit.stdout.strip()
    assert f"holdout_{sandbox.PRIMARY}" in parent.data.metrics
    client, run_id = tracking.client(), trained.run.tracking_run_id
    files = {file.path for file in client.list_artifacts(run_id)}
    assert {"report.html", "environment.txt"} <= files
    installed = sandbox.read_artifact(run_id, "environment.txt")
    assert "mlflow==" in installed


def test_each_candidate_has_a_run_of_its_own(trained: Trained) -> None:
    features = FeaturesRef.model_validate(sandbox.result(trained.run, "featurize"))
    runs = {run.data.params["candidate"]: run for run in sandbox.children(trained.run)}
    assert sorted(runs) == CANDIDATES
    for name, run in runs.items():
        candidate = CandidateRef.model_validate(sandbox.result(trained.run, f"train-{name}"))
        assert run.info.status == "FINISHED"
        assert run.info.run_id == candidate.tracking_run_id
        assert run.data.metrics[f"validation_{sandbox.PRIMARY}"] == candidate.score
        assert set(candidate.params) <= set(run.data.params)
        (dataset,) = run.inputs.dataset_inputs
        assert dataset.dataset.digest == features.fingerprint
        model = get_model_info(candidate.model_uri)
        assert model.signature is not None
        assert model.signature.outputs is not None
        assert model.saved_input_example_info is not None


def test_the_report_and_the_result_table_say_what_became_of_the_run(trained: Trained) -> None:
    report = ReportRef.model_validate(sandbox.result(trained.run, "report"))
    assert report.succeeded
    assert trained.run.key in storage.path_of(report.uri).read_text()
    shown = io.StringIO()
    print_result(Console(file=shown, width=80), trained.run.key)
    lines = shown.getvalue().splitlines()
    assert any("promoted: version 1 is champion; the first one" in line for line in lines)
    # In one piece, however narrow the terminal is.
    assert f"report       {storage.path_of(report.uri)}" in lines


def test_a_rerun_changes_nothing(trained: Trained) -> None:
    before = EvaluationRef.model_validate(sandbox.result(trained.run, "evaluate"))
    again = pipeline.execute("training", sandbox.PARTITION)
    after = EvaluationRef.model_validate(sandbox.result(again, "evaluate"))
    assert after.metrics == before.metrics
    assert after.candidate.fingerprint == before.candidate.fingerprint
    assert after.verdict.decision == "keep"
    kinds = [note.kind for note in after.verdict.notes if not note.classes]
    assert kinds == ["already_champion"]
    assert sandbox.registry() == sandbox.Registry(versions=[1], champion=1, previous=None)
    assert sandbox.temporary_files() == []


def test_a_run_started_again_continues_the_same_mlflow_run(small: Path) -> None:
    first, again = start("training", key="one"), start("training", key="one")
    assert first == again
    assert start("training", key="two").tracking_run_id != first.tracking_run_id


def test_without_more_data_a_failed_gate_keeps_the_champion(small: Path, tmp_path: Path) -> None:
    days = [sandbox.day(-back) for back in range(5)]
    variables = sandbox.SMALL | sandbox.OUT_OF_REACH | sandbox.source_of(tmp_path / "source", days)
    with sandbox.enter(small, variables):
        run = pipeline.execute("training")
    assert run.partition == sandbox.PARTITION
    assert sandbox.result(run, "evaluate")["verdict"]["decision"] == "keep"
    assert "evaluate-wider" not in sandbox.records(run)


def test_a_run_that_cannot_start_is_alerted(small: Path, tmp_path: Path, inbox: Inbox) -> None:
    with (
        sandbox.enter(small, {"DATA__SOURCE": str(tmp_path / "nothing")}),
        pytest.raises(MissingPartitions, match="no partition"),
    ):
        pipeline.execute("training")
    assert [(event["kind"], event["stage"]) for event in inbox()] == [("failure", "start")]


def test_a_partition_without_labels_is_scored_and_judged_once_they_are_there(
    trained: Trained, tmp_path: Path
) -> None:
    day = "2013-02-01"
    variables = sandbox.source_of(tmp_path / "source", [day])
    sandbox.sample(day).drop("arr_delay").write_parquet(tmp_path / f"source/{day}.parquet")
    with sandbox.enter(trained.root, variables):
        early = pipeline.execute("inference", day)
    assert sandbox.result(early, "score")["rows"] == sandbox.sample(day).height
    assert sandbox.result(early, "monitor")["live_metrics"] == {}
    late = pipeline.execute("inference", day)
    assert sandbox.PRIMARY in sandbox.result(late, "monitor")["live_metrics"]
    assert (
        sandbox.result(late, "score")["fingerprint"]
        == sandbox.result(early, "score")["fingerprint"]
    )
