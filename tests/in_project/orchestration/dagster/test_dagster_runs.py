"""Runs of the jobs in this process: a gate that fails, and data that is rejected."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import example
import pytest
import sandbox
from flight_delays.core import optional

DEFINITIONS = "flight_delays.definitions"
DAY = f"{sandbox.PARTITION}"

Inbox = Callable[[], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def package() -> Any:
    """Return the package of the definitions, loaded with the example's settings."""
    with sandbox.enter(example.ROOT):
        return optional.load("definitions")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """Return a Dagster that forgets everything afterwards."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def module(name: str) -> Any:
    """Return a module of the definitions."""
    return optional.load(f"defs.{name}")


def run_job(
    package: Any, name: str, instance: dg.DagsterInstance, partition: str = DAY
) -> dg.ExecuteInProcessResult:
    """Run a job in this process."""
    job: dg.JobDefinition = package.defs.resolve_job_def(name)
    return job.execute_in_process(instance=instance, partition_key=partition, raise_on_error=False)


def test_a_gate_that_fails_leads_to_a_wider_window(
    package: Any, instance: dg.DagsterInstance, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in sandbox.OUT_OF_REACH.items():
        monkeypatch.setenv(f"PIPELINE_{name}", value)
    sandbox.clear_caches()

    done = run_job(package, "training", instance)

    assert done.success
    made = {_path(event.asset_key) for event in done.get_asset_materialization_events()}
    assert {"training/wider_window/evaluation", "training/wider_window/promotion"} <= made
    assert "training/window/promotion" not in made
    assert sandbox.registry().champion is None
    checked = {_path(check.asset_key): check for check in done.get_asset_check_evaluations()}
    assert not checked["training/wider_window/evaluation"].passed


def _path(key: dg.AssetKey | None) -> str:
    assert key is not None
    return key.to_user_string()


def test_rejected_data_is_a_failed_check_tried_once_and_alerted_once(
    package: Any,
    instance: dg.DagsterInstance,
    small: Path,
    inbox: Inbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIPELINE_VALIDATION__MIN_ROWS", "1000000")
    sandbox.clear_caches()

    done = run_job(package, "training", instance)

    assert not done.success
    failed = [event.step_key for event in done.all_events if event.is_step_failure]
    assert failed == ["training__window__valid"]
    [check] = done.get_asset_check_evaluations()
    assert not check.passed
    context = dg.build_run_status_sensor_context(
        sensor_name="alert_failed_run",
        dagster_instance=instance,
        dagster_run=done.dagster_run,
        dagster_event=done.get_run_failure_event(),
    ).for_run_failure()
    module("sensors").alert_failed_run(context)
    [event] = inbox()
    assert event["kind"] == "data_rejected"
    assert event["pipeline"] == "training"
    assert event["stage"] == "window.validate"
    assert event["partition"] == DAY
    assert event["try_number"] == 1
    assert event["run_key"] == f"training-{done.run_id}"
    assert f"/runs/{done.run_id}" in event["log_url"]
    assert "/runs/" in event["tracking_url"]
    assert "too_few_rows" in event["error"]
