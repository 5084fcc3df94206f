"""Each stage's process imports what the stage uses, and nothing heavier.

Measured by running every stage in a process of its own, on the references of a finished run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sandbox
from flight_delays import pipeline
from flight_delays.core.refs import Run
from flight_delays.stages.start import start
from sandbox import Trained

PROGRAM = """
import json, sys
from flight_delays.stages import run_stage
run_stage(sys.argv[1], **json.loads(sys.argv[2]))
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""
HEAVY = {"airflow", "matplotlib", "mlflow", "optuna", "pandera", "scipy", "sklearn", "xgboost"}
# MLflow's client itself imports scipy; loading a model imports what it was made with.
CLIENT = {"mlflow", "scipy"}
MODELS = CLIENT | {"sklearn", "xgboost"}
# What each stage may import of these; the candidate that train is run for is the linear one.
ALLOWED: dict[str, set[str]] = {
    "start": CLIENT | {"pandera"},  # it reads the whole of domain/
    "ingest": set(),
    "validate": {"pandera"},
    "featurize": set(),
    "train": CLIENT | {"optuna", "sklearn"},
    "select": set(),
    "evaluate": MODELS,
    "promote": CLIENT,
    "score": MODELS | {"pandera"},  # the key columns are part of the contract
    "monitor": MODELS | {"pandera"},
    "report": MODELS | {"matplotlib"},
}


@pytest.fixture(scope="module")
def imported(trained_once: Trained) -> Iterator[dict[str, set[str]]]:
    """Run every stage in a process of its own; returns the top-level modules each imported."""
    with sandbox.enter(trained_once.root):
        calls = _calls(trained_once.run, pipeline.execute("inference", sandbox.PARTITION))
        with ThreadPoolExecutor(2) as pool:
            yield dict(zip(calls, pool.map(_run, calls, calls.values()), strict=True))


def _calls(trained: Run, scored: Run) -> dict[str, dict[str, Any]]:
    """Return each stage's arguments: what finished runs made, for a run with a key of its own."""
    made = {label: record.result for label, record in sandbox.records(trained).items()}
    later = {label: record.result for label, record in sandbox.records(scored).items()}
    run = start("training", sandbox.PARTITION, "imports").model_dump(mode="json")
    inference = run | {"pipeline": "inference"}
    return {
        "start": {"pipeline": "training", "partition": run["partition"], "key": run["key"]},
        "ingest": {"run": run},
        "validate": {"run": run, "raw": made["ingest"]},
        "featurize": {"run": run, "dataset": made["validate"]},
        "train": {"run": run, "features": made["featurize"], "candidate": "linear"},
        "select": {"run": run, "candidates": [made["train-linear"]]},
        "evaluate": {"run": run, "features": made["featurize"], "candidate": made["select"]},
        "promote": {"run": run, "evaluation": made["evaluate"]},
        "score": {"run": inference, "features": later["featurize"]},
        "monitor": {"run": inference, "features": later["featurize"], "scores": later["score"]},
        "report": {"run": run},
    }


def _run(name: str, arguments: dict[str, Any]) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, name, json.dumps(arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("name", ALLOWED)
def test_a_stage_imports_only_what_it_uses(imported: dict[str, set[str]], name: str) -> None:
    assert imported[name] & HEAVY <= ALLOWED[name]
