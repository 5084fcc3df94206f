"""A process killed in the middle of a stage: running again gives what an undisturbed run gives.

What dies is a process of its own, forked from one that has the imports behind it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import mlflow.sklearn
import pytest
import sandbox
from flight_delays import pipeline
from flight_delays.core import registry, stage, storage, tracking
from flight_delays.core.records import StageRecord

PACKAGE = "flight_delays"
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["mlflow.sklearn", "mlflow.store.tracking.sqlalchemy_store", f"{PACKAGE}.pipeline"]
)
# The stage, and the call within it that is the process's last. `os.replace` is the move of a
# finished file to its name.
LAST_CALLS: dict[str, tuple[Any, str]] = {
    "start": (tracking, "log_params"),
    "ingest": (os, "replace"),
    "validate": (os, "replace"),
    "featurize": (os, "replace"),
    "train": (mlflow.sklearn, "save_model"),
    "select": (os, "replace"),
    "evaluate": (os, "replace"),
    "promote": (registry, "succeed"),
    "report": (tracking, "finish"),
}


def run_and_die(root: Path, name: str) -> None:
    """Run the training pipeline until the stage makes its last call, and die there."""
    module, function = LAST_CALLS[name]
    original = getattr(module, function)
    running = ["start"]

    def die_in_the_stage(*args: Any, **kwargs: Any) -> Any:
        if running[-1].split("-")[0] == name:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    def follow(label: str, record: StageRecord | None) -> None:
        running.append(label if record is None else "")

    stage.listeners.append(follow)
    setattr(module, function, die_in_the_stage)
    with sandbox.enter(root, sandbox.SMALL):
        pipeline.execute("training", sandbox.PARTITION)


def outcome() -> dict[str, Any]:
    """Run the training pipeline in this process and return what it led to."""
    run = pipeline.execute("training", sandbox.PARTITION)
    records = {label: record.result for label, record in sandbox.records(run).items()}
    evaluation = records["evaluate"]
    assert evaluation is not None
    return {
        "stages": sorted(records),
        "metrics": evaluation["metrics"],
        "model": evaluation["candidate"]["fingerprint"],
        "registry": sandbox.registry(),
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tables: Path) -> dict[str, Any]:
    """Run once without being killed."""
    root = sandbox.make(tmp_path_factory.mktemp("undisturbed") / "project", tables)
    with sandbox.enter(root, sandbox.SMALL):
        return outcome()


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is of POSIX systems")
@pytest.mark.parametrize("name", LAST_CALLS)
def test_running_again_after_a_kill_gives_the_same(
    small: Path, undisturbed: dict[str, Any], name: str
) -> None:
    process = PROCESSES.Process(target=run_and_die, args=(small, name))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL

    assert outcome() == undisturbed
    assert undisturbed["registry"] == sandbox.Registry(versions=[1], champion=1, previous=None)
    assert sandbox.temporary_files() == []
    for path in (small / "var" / "artifacts").rglob("*.parquet"):
        assert storage.read_parquet(str(path)).width > 0
