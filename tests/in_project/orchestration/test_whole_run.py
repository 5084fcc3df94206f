"""The same story on each engine: a champion, predictions, and bad data that is stopped.

One story on one database, since creating it is what takes the time. Whichever engine the project
has tells it, as `poe run` does.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import example
import flight_delays
import pytest
from flight_delays.core import registry, storage, tracking
from flight_delays.core.settings import load_settings
from receivers import webhook
from sandbox import CHECKOUT

PARTITION = "2013-02-01"
NO_RETRIES = {"PIPELINE_LIMITS__RETRIES": "0"}


@dataclass(frozen=True)
class Engine:
    """What differs from engine to engine.

    Attributes:
        folder: The checkout's folder with the graphs, if it is beside the package.
        variables: What every run is given.
        inference: What a run of inference is given, too.
        address: Part of the run's address in the engine, where MLflow keeps one.
        alert: What an alert about rejected data says.
    """

    folder: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    inference: dict[str, str] = field(default_factory=dict)
    address: str = ""
    alert: tuple[str, ...] = ("Data rejected",)


ENGINES = {
    "airflow": Engine(
        variables=NO_RETRIES | {"AIRFLOW__CORE__DAGS_FOLDER": str(CHECKOUT / "dags")}
    ),
    "dagster": Engine(variables=NO_RETRIES, address="/runs/"),
    # Its retries stay: bad data is never tried again.
    "prefect": Engine(
        folder="flows",
        address="/runs/flow-run/",
        alert=("Data rejected", f"training / ingest / {PARTITION}", "/runs/task-run/"),
    ),
    # Whatever the days differ in, it must not lead to another training here.
    "kubeflow": Engine(
        folder="pipelines",
        variables=NO_RETRIES,
        inference={"PIPELINE_MONITORING__MAX_PSI": "1e9", "PIPELINE_GATES__METRICS": "{}"},
    ),
}
[NAME] = ENGINES.keys() & {
    path.parent.name
    for path in Path(flight_delays.__file__).parent.glob("orchestration/*/__init__.py")
}
ENGINE = ENGINES[NAME]


def run(project: Path, pipeline: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a pipeline for the project in `PIPELINE_HOME`."""
    code = f"from flight_delays.orchestration.{NAME}.local import run\n"
    code += f"run({pipeline!r}, {PARTITION!r})"
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**own, "PIPELINE_TRAINING__TRIALS": "1", **ENGINE.variables, **variables},
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )


def runs(condition: str) -> list[Any]:
    return list(tracking.client().search_runs([tracking.experiment_id()], condition))


def make_mistake(project: Path) -> dict[str, str]:
    """Write a domain with a mistake in one of its steps; returns what makes a run take it."""
    folder = project / "mistaken"
    shutil.copytree(example.ROOT / "domain", folder / "domain")
    (folder / "__init__.py").touch()
    steps = folder / "domain" / "steps.py"
    steps.write_text(steps.read_text().replace("dataset.rows", "dataset.rose"))
    path = os.pathsep.join([str(project), str(example.ROOT.parent)])
    retries = {"PIPELINE_LIMITS__RETRIES": "2"}
    return {"PIPELINE_DOMAIN": "mistaken.domain", "PYTHONPATH": path, **retries}


def assert_read_in_ten_seconds(failed: subprocess.CompletedProcess[str]) -> None:
    """Assert that a person sees what is wrong, where, and what was not run because of it."""
    assert failed.returncode != 0
    lines = failed.stdout.splitlines()
    # It was not tried again.
    assert len([line for line in lines if line.startswith("✗ count_rows ")]) == 2
    end = "\n".join([*lines, *failed.stderr.splitlines()][-15:])
    assert f"✗ count_rows failed for {PARTITION}" in end
    assert "AttributeError: 'DatasetRef' object has no attribute 'rose'" in end
    assert "mistaken/domain/steps.py:10 in count_rows" in end
    assert '  10      return {"rows": dataset.rose, "partition": run.partition}' in end
    assert "not run: featurize, train, select, evaluate, promote" in end
    log = re.search(r"all it printed: (var/log/training-\S+\.log)", end)
    assert log, end


# Four runs on the engine, however busy the machine is.
@pytest.mark.timeout(1200)
def test_a_champion_is_trained_a_partition_scored_and_bad_data_stopped(project: Path) -> None:
    if ENGINE.folder:
        (project / ENGINE.folder).symlink_to(CHECKOUT / ENGINE.folder)
    with webhook() as slack:
        channel = {"SLACK_WEBHOOK_URL": slack.url}
        trained = run(project, "training", **channel)
        assert trained.returncode == 0, trained.stdout[-3000:] + trained.stderr[-3000:]
        champion = registry.require_champion()
        [parent] = runs("tags.`pipeline.name` = 'training'")
        assert parent.info.status == "FINISHED"
        assert ENGINE.address in parent.data.tags.get("pipeline.engine_url", "")
        trained_by = runs(f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
        assert len(trained_by) == len(load_settings().training.candidates)
        # The team's own steps are tasks of the engine like all others.
        own = {"seconds.count_rows", "seconds.look_twice", "seconds.tell"}
        assert own <= parent.data.metrics.keys()

        scored = run(project, "inference", **channel, **ENGINE.inference)
        assert scored.returncode == 0, scored.stdout[-3000:] + scored.stderr[-3000:]
        [inferred] = runs("tags.`pipeline.name` = 'inference'")
        assert {"seconds.count_rows", "seconds.deliver"} <= inferred.data.metrics.keys()
        path = storage.artifact_path("predictions", f"{PARTITION}.parquet")
        source = storage.read_parquet(str(project / "data/sample" / f"{PARTITION}.parquet"))
        assert storage.read_parquet(str(path)).height == source.height

        # Nobody is told twice: one alert for the new champion until here.
        told = len(slack.bodies)
        mistaken = run(project, "training", **channel, **make_mistake(project))
        [alert] = slack.bodies[told:]
        assert "steps.py" in f"{json.loads(alert)}"
        assert_read_in_ten_seconds(mistaken)

        told = len(slack.bodies)
        (project / f"data/sample/{PARTITION}.parquet").write_bytes(b"PAR1 cut off")
        stopped = run(project, "training", **channel)

    assert stopped.returncode != 0
    assert "unreadable_file" in stopped.stdout + stopped.stderr
    assert registry.require_champion().version == champion.version
    assert len(runs("attributes.status = 'FAILED'")) == 2
    [alert] = slack.bodies[told:]
    assert all(text in json.dumps(json.loads(alert)) for text in ENGINE.alert)
