"""Tracking: what MLflow refuses, what is tried again, and what a run is that is run again."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sandbox
from flight_delays.core import storage, tracking
from flight_delays.core.records import StageError, StageRecord, read_records, record_path
from flight_delays.core.refs import Run
from flight_delays.stages.start import start
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, RESOURCE_DOES_NOT_EXIST


class Refusing:
    """Stands for a client whose first call is refused."""

    def __init__(self, code: int) -> None:
        self.calls, self._code = 0, code

    def log_inputs(self, *_: Any) -> None:
        """Refuse the first call."""
        self.calls += 1
        if self.calls == 1:
            raise MlflowException("refused", self._code)


def test_a_dataset_that_another_candidate_has_just_logged_is_logged_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = Refusing(BAD_REQUEST)
    monkeypatch.setattr(tracking, "client", lambda: client)
    tracking.log_dataset("run", "features", "somewhere", "digest", 1)
    assert client.calls == 2


def test_any_other_refusal_of_a_dataset_is_raised_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Refusing(RESOURCE_DOES_NOT_EXIST)
    monkeypatch.setattr(tracking, "client", lambda: client)
    with pytest.raises(MlflowException, match="refused"):
        tracking.log_dataset("run", "features", "somewhere", "digest", 1)
    assert client.calls == 1


def candidate(run: Run, trees: int, data: str) -> str:
    """Log a candidate as the train stage does; returns its MLflow run."""
    params = {"candidate": "forest", "trees": trees}
    run_id = tracking.open_child(run, "forest", "normal", params, data)
    tracking.log_params(run_id, params)
    tracking.log_dataset(run_id, "features", "somewhere", data, 1)
    return run_id


@pytest.mark.usefixtures("tracked")
def test_a_key_that_is_run_again_with_other_data_or_parameters_is_another_attempt() -> None:
    run = start("training", sandbox.PARTITION, key="the-key")
    first = candidate(run, 3, "the data")

    assert candidate(run, 3, "the data") == first
    corrected, tuned = candidate(run, 3, "corrected data"), candidate(run, 4, "the data")

    assert len({first, corrected, tuned}) == 3
    named = {one.info.run_id: one.info.run_name for one in sandbox.children(run)}
    assert named == {
        first: "forest",
        corrected: "forest, attempt 2",
        tuned: "forest, attempt 3",
    }
    kept = tracking.client().get_run(first).data.params
    assert kept == {"candidate": "forest", "trees": "3"}


@pytest.mark.usefixtures("tracked")
def test_a_key_that_is_run_again_with_other_settings_has_a_run_and_candidates_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = start("training", sandbox.PARTITION, key="the-key")
    learned = candidate(first, 3, "the data")
    assert start("training", sandbox.PARTITION, key="the-key") == first

    monkeypatch.setenv("PIPELINE_TRAINING__SEED", "99")
    sandbox.clear_caches()
    again = start("training", sandbox.PARTITION, key="the-key")

    assert again.tracking_run_id != first.tracking_run_id
    assert candidate(again, 3, "the data") != learned
    # What the first attempt left is none of the second's.
    for number, (run, label, error) in enumerate(
        [(first, "train-gone", StageError(kind="BadInput", message="gone")), (again, "train", None)]
    ):
        kept = StageRecord(
            stage="train",
            label=label,
            started=datetime(2026, 1, 1 + number, tzinfo=UTC),
            seconds=1,
            error=error,
            attempt=run.tracking_run_id,
        )
        storage.write_model(record_path("the-key", label), kept)
    assert [record.label for record in read_records("the-key")] == ["train"]
    seeds = [
        tracking.client().get_run(run.tracking_run_id).data.params["training.seed"]
        for run in (first, again)
    ]
    assert seeds == ["7", "99"]


def test_the_registry_of_another_deployment_gets_no_versions(
    tracked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = tmp_path / "theirs.db"
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", f"sqlite:///{theirs}")
    tracking.client().create_registered_model("ours")
    assert not theirs.exists()
    assert caplog.text.count("MLFLOW_REGISTRY_URI is not used") == 1
    assert f"{theirs}" not in caplog.text
    found = MlflowClient(tracking.tracking_uri()).search_registered_models()
    assert [one.name for one in found] == ["ours"]
