"""A Kubeflow project: its local runner, and every command of the compiled pipeline as a process.

There is no cluster here. What one would do with a step is done by `Cluster`: it follows the
compiled file and hands values over as text and files. One project serves all tests of this module;
they run in their order, as one story.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from receivers import mailbox, webhook

from ..support.kubeflow import Cluster
from ..support.projects import children_of, make_installed_project, runs_of
from ..support.stories import CANDIDATES, Story

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ONE_CANDIDATE = {"PIPELINE_TRAINING__CANDIDATES": '["linear"]'}


class Stack(Story):
    """The project with those whom it tells."""

    def told(self) -> list[str]:
        """Return what was told since the last call; each channel must have been told of all."""
        bodies = [body.decode() for body in self.slack.bodies]
        assert len(bodies) == len(self.mail.messages)
        self.slack.bodies.clear()
        self.mail.messages.clear()
        return bodies

    def run(
        self,
        pipeline: str,
        partition: str,
        variables: dict[str, str] | None = None,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a pipeline with `poe run`; its output holds the runner's own."""
        command = ("poe", "run", "--verbose", "--pipeline", pipeline, "--partition", partition)
        return self.project.run(*command, check=check, variables=variables)

    def parents(self, pipeline: str) -> list[dict[str, Any]]:
        """Return the MLflow runs of a pipeline, newest first."""
        return runs_of(self.project.mlflow(), pipeline)


@pytest.fixture(scope="module")
def stack(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Install a project that trains on few days and reports to a local webhook and mail server."""
    folder = tmp_path_factory.mktemp("kubeflow")
    project = make_installed_project(sources, folder, orchestrator="kubeflow")
    for old, new in {
        "trials = 5 ": "trials = 1 ",
        "\nwindow = 21 ": "\nwindow = 6 ",
        "wider_window = 28 ": "wider_window = 8 ",
        "holdout = 7 ": "holdout = 2 ",
        "min = 0.55": "min = 0.0",
        "retry_delay_seconds = 30": "retry_delay_seconds = 1",
        "max_psi = 0.1 ": "max_psi = 1e9 ",
    }.items():
        project.edit_config(old, new)
    with webhook() as slack, mailbox() as mail:
        project.environment |= {
            "SLACK_WEBHOOK_URL": slack.url,
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": f"{mail.port}",
            "SMTP_SECURITY": "none",
            "SMTP_FROM": "pipeline@example.org",
            "SMTP_TO": "team@example.org",
        }
        yield Stack(project, slack, mail)


@pytest.fixture
def features(stack: Stack) -> Iterator[Path]:
    """Return the team's own file of features; it is put back afterwards."""
    path = stack.project.path / "src" / stack.project.package / "domain" / "features.py"
    text = path.read_text()
    yield path
    path.write_text(text)


def misbehave(features: Path, code: str) -> None:
    """Let the function that computes features begin with some code."""
    text = features.read_text()
    tree = ast.parse(text)
    [function] = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "features"
    ]
    lines = text.splitlines(keepends=True)
    first = function.body[1].lineno - 1
    lines[first:first] = [f"    {line}\n" for line in code.splitlines()]
    features.write_text("".join(lines))


def learned(mlflow: dict[str, Any], parent: dict[str, Any]) -> dict[str, Any]:
    """Return what the candidates of a run learned from, and how well, by candidate."""
    return {
        name: (run["inputs"], run["metrics"]["validation_roc_auc"])
        for name, run in children_of(mlflow, parent).items()
    }


# --- a stand-in for a cluster -------------------------------------------------------------------


# --- the story ---------------------------------------------------------------------------------


def test_the_local_runner_trains_all_candidates_and_promotes_a_champion(stack: Stack) -> None:
    ran = stack.run("training", "2013-01-28")

    assert "promoted: version 1 is champion" in " ".join(ran.stdout.split())
    mlflow = stack.project.mlflow()
    [parent] = stack.parents("training")
    assert parent["status"] == "FINISHED"
    assert parent["tags"]["pipeline.run_key"].startswith("training-local-")
    assert parent["metrics"]["rows.ingest"] > 4000
    assert {"report.html", "environment.txt"} <= set(parent["artifacts"])
    found = learned(mlflow, parent)
    assert set(found) == CANDIDATES
    assert all(inputs and 0.4 < score < 1 for inputs, score in found.values())
    assert mlflow["aliases"] == {"champion": 1}
    [text] = stack.told()
    assert "New champion" in text


def test_every_command_of_the_compiled_pipeline_does_the_same_as_a_process_of_its_own(
    stack: Stack, tmp_path: Path
) -> None:
    stack.project.run("poe", "compile")
    compiled = stack.project.path / "var" / "kubeflow" / "training.yaml"
    document = next(yaml.safe_load_all(compiled.read_text()))
    # Nothing that the local run wrote is there.
    elsewhere = {
        "PIPELINE_HOME": str(stack.project.path),
        "PIPELINE_STORAGE__ROOT": str(tmp_path / "artifacts"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "KFP_UI_URL": "https://kubeflow.example.org",
    }
    (tmp_path / "pods").mkdir()
    cluster = Cluster(document, tmp_path / "pods", stack.project, elsewhere)

    assert cluster.run(partition="2013-01-28")

    counted = [name.rstrip("-0123456789") for name in cluster.ran]
    assert counted.count("train") == 3
    assert set(counted) >= {"start", "ingest", "validate", "featurize", "select", "evaluate"}
    assert counted[-2:] == ["promote", "finish"]
    [text] = stack.told()
    assert "New champion" in text

    [here] = stack.parents("training")
    expected = learned(stack.project.mlflow(), here)
    mlflow = stack.project.mlflow(elsewhere)
    [parent] = [run for run in mlflow["runs"] if "pipeline.name" in run["tags"]]
    assert learned(mlflow, parent) == expected
    assert parent["status"] == "FINISHED"
    assert parent["tags"]["pipeline.run_key"] == "training-0d5e-cluster"
    page = "https://kubeflow.example.org/#/runs/details/0d5e-cluster"
    assert parent["tags"]["pipeline.engine_url"] == page
    [report] = (tmp_path / "pods").glob("*-finish/page")
    assert page in report.read_text()
    [link] = (tmp_path / "pods").glob("*-start/mlflow")
    assert parent["id"] in link.read_text()


def test_bad_data_tells_every_channel_once_and_leaves_the_champion(stack: Stack) -> None:
    with stack.broken("2013-01-28"):
        ran = stack.run("training", "2013-01-28", check=False)

    assert ran.returncode != 0
    [text] = stack.told()
    assert "Data rejected" in text
    assert "2013-01-28" in text
    # Trying again cannot help.
    assert "next in" not in ran.stdout + ran.stderr
    mlflow = stack.project.mlflow()
    assert mlflow["aliases"] == {"champion": 1}
    assert stack.parents("training")[0]["status"] == "FAILED"


def test_a_stage_that_hangs_is_ended_at_its_limit_and_told_once(
    stack: Stack, features: Path
) -> None:
    misbehave(features, "import time\ntime.sleep(600)")

    limits = {
        "PIPELINE_LIMITS__STAGE_TIMEOUT_MINUTES": "0.2",
        "PIPELINE_LIMITS__RETRIES": "0",
    }
    ran = stack.run("training", "2013-01-28", {**ONE_CANDIDATE, **limits}, check=False)

    assert ran.returncode != 0
    [text] = stack.told()
    assert "featurize" in text
    assert "0.2 minutes" in text
    assert stack.parents("training")[0]["status"] == "FAILED"


def test_a_stage_that_fails_once_and_is_killed_once_recovers(
    stack: Stack, features: Path, tmp_path: Path
) -> None:
    """The step itself tries again after an error; Kubeflow does where its process is gone."""
    counter = tmp_path / "calls"
    misbehave(
        features,
        "import os, signal\n"
        # The start tries features on no rows.
        f"with open({str(counter)!r}, 'a') as calls:\n"
        "    calls.write('x' * bool(rows.height))\n"
        f"count = os.path.getsize({str(counter)!r})\n"
        "if rows.height and count == 1:\n"
        "    raise OSError('the network is down')\n"
        "if rows.height and count == 2:\n"
        "    os.kill(os.getpid(), signal.SIGKILL)",
    )

    ran = stack.run("training", "2013-01-28", ONE_CANDIDATE)

    log = ran.stdout + ran.stderr
    assert "featurize: try 1 failed, next in 0 s" in log
    assert len(counter.read_text()) > 2
    assert stack.parents("training")[0]["status"] == "FINISHED"
    # What succeeds in the end is no failure.
    assert not [text for text in stack.told() if "New champion" not in text]


def test_a_gate_that_fails_leads_to_one_wider_window_and_then_to_the_old_champion(
    stack: Stack,
) -> None:
    before = stack.project.mlflow()["aliases"]
    gate = {"PIPELINE_GATES__METRICS__ROC_AUC__MIN": "1e9"}
    stack.run("training", "2013-01-29", {**ONE_CANDIDATE, **gate})

    mlflow = stack.project.mlflow()
    parent = stack.parents("training")[0]
    children = [
        run["tags"]["pipeline.candidate"]
        for run in mlflow["runs"]
        if run["tags"].get("mlflow.parentRunId") == parent["id"]
    ]
    assert sorted(children) == ["linear", "linear (wider window)"]
    assert parent["status"] == "FINISHED"
    assert mlflow["aliases"] == before
    # The gate was tightened: the champion that stays does not hold it either, which is told once.
    [told] = stack.told()
    assert "The champion breaks a gate" in told


def test_drift_alerts_and_trains_for_the_same_day(stack: Stack) -> None:
    drift = {"PIPELINE_MONITORING__MAX_PSI": "1e-9"}
    ran = stack.run("inference", "2013-02-01", {**ONE_CANDIDATE, **drift})

    assert "retrain" in ran.stdout
    [inference] = stack.parents("inference")
    training = stack.parents("training")[0]
    assert inference["metrics"]["rows.score"] > 500
    assert inference["status"] == training["status"] == "FINISHED"
    assert training["tags"]["pipeline.partition"] == "2013-02-01"
    run_id = inference["tags"]["pipeline.run_key"].removeprefix("inference-")
    assert training["tags"]["pipeline.run_key"] == f"training-{run_id}"
    told = stack.told()
    assert sum("Drift" in text for text in told) == 1
    assert not [text for text in told if "Failed" in text]


def test_a_training_that_drift_started_and_that_fails_is_told_once(stack: Stack) -> None:
    """Its own last step tells of it; that of the inference around it does not again."""
    early = stack.project.path / "data" / "sample" / "2013-01-27.parquet"
    shutil.move(early, early.with_suffix(".away"))
    try:
        drift = {"PIPELINE_MONITORING__MAX_PSI": "1e-9"}
        drift |= {"PIPELINE_TRAINING__MIN_PARTITIONS_SHARE": "1"}
        ran = stack.run("inference", "2013-02-01", {**ONE_CANDIDATE, **drift}, check=False)
    finally:
        shutil.move(early.with_suffix(".away"), early)

    assert ran.returncode != 0
    assert stack.parents("inference")[0]["status"] == "FINISHED"
    assert stack.parents("training")[0]["status"] == "FAILED"
    failures = [text for text in stack.told() if "Drift" not in text]
    assert len(failures) == 1
    assert "training" in failures[0]
