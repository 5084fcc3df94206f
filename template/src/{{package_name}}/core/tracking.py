"""The seam to MLflow's runs and links to them; the model registry is in `registry`.

One parent run per pipeline run, opened by the start stage and passed on by its id; one child run
per candidate. Nothing here depends on MLflow's idea of an "active run" in another process.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .answers import TRACKING
from .errors import SettingsError
from .logs import get_logger
from .outcomes import Window
from .paths import project_root
from .redact import redact
from .refs import Run
from .settings import load_environment, load_settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = get_logger(__name__)

RUN_KEY_TAG = "pipeline.run_key"
CHILD_TAG = "pipeline.candidate"
ENGINE_URL_TAG = "pipeline.engine_url"


def tracking_uri() -> str:
    """Return $MLFLOW_TRACKING_URI, or the project's own SQLite file where it tracks locally.

    Raises:
        SettingsError: The project tracks on a server, and the variable is not set.
    """
    load_environment()
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if uri:
        return uri
    if TRACKING == "mlflow_server":
        raise SettingsError(
            "MLFLOW_TRACKING_URI is not set: `uv run poe stack up` starts this project's MLflow "
            "server and writes the address into .env"
        )
    if TRACKING == "mlflow_remote":
        raise SettingsError(
            "MLFLOW_TRACKING_URI is not set: put your MLflow server's address into .env, and "
            "MLFLOW_TRACKING_TOKEN or user name and password if it asks for them"
        )
    return f"sqlite:///{project_root() / 'var' / 'mlflow' / 'mlflow.db'}"


@functools.cache
def client() -> MlflowClient:
    """Return the client, connected once a process; the first call creates a local store."""
    # Exactly "true" is what MLflow looks for.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    import mlflow

    # It advises on choices that are made here on purpose: pickled models, pinned requirements.
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    uri = tracking_uri()
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(uri)
    # Else the one of an earlier connection of this process stays.
    mlflow.set_registry_uri(os.environ.get("MLFLOW_REGISTRY_URI", uri))
    return mlflow.MlflowClient()


def experiment_id() -> str:
    """Return the project's experiment, created at the first call."""
    name = load_settings().project.slug
    experiment = client().get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    location = None
    if tracking_uri().startswith("sqlite:///"):
        location = (project_root() / "var" / "mlflow" / "artifacts").as_uri()
    return str(client().create_experiment(name, artifact_location=location))


def run_url(run_id: str) -> str:
    """Return the address of a run's page in the MLflow UI, at $MLFLOW_UI_URL where that is set.

    MLflow is not asked: an alert about a server that hangs must not wait for it.
    """
    uri = tracking_uri()
    port = os.environ.get("MLFLOW_PORT", "5000")
    base = uri if uri.startswith("http") else f"http://127.0.0.1:{port}"
    base = (os.environ.get("MLFLOW_UI_URL") or base).rstrip("/")
    # The address may hold a password, and links are shown to everybody.
    base = re.sub(r"//[^/@]*@", "//", base)
    return f"{base}/#/runs/{run_id}"


def engine_url(run: Run) -> str:
    """Return the engine's page of a run; empty where there is none."""
    return str(client().get_run(run.tracking_run_id).data.tags.get(ENGINE_URL_TAG, ""))


def open_run(run: Run, engine_url: str | None = None) -> str:
    """Open the parent run of a pipeline run, or open it again if that key is known.

    Logs the settings, the git commit and the versions of all installed packages, and where the
    engine shows the run.
    """
    import polars as pl

    tags: dict[str, str] = {"pipeline.name": run.pipeline}
    if engine_url:
        tags |= {ENGINE_URL_TAG: engine_url, "mlflow.note.content": f"[Engine]({engine_url})"}
    run_id, is_new = _find_or_create(run, "", f"{run.pipeline} {run.partition}", tags)
    if not is_new:
        client().update_run(run_id, status="RUNNING")
        return run_id
    log_params(run_id, pl.json_normalize(run.settings.model_dump(mode="json")).row(0, named=True))
    installed = sorted({f"{dist.name}=={dist.version}" for dist in metadata.distributions()})
    client().log_text(run_id, "\n".join(installed) + "\n", "environment.txt")
    return run_id


def open_child(run: Run, candidate: str, window: Window) -> str:
    """Open the run of one candidate below the parent; a retry gets the same one again."""
    child = candidate if window == "normal" else f"{candidate} (wider window)"
    run_id, _ = _find_or_create(run, child, child, {"mlflow.parentRunId": run.tracking_run_id})
    return run_id


def _find_or_create(run: Run, child: str, name: str, tags: dict[str, str]) -> tuple[str, bool]:
    """Return the id of the MLflow run of a pipeline run or its child, and whether it is new."""
    experiment = experiment_id()
    condition = f"tags.`{RUN_KEY_TAG}` = '{run.key}' and tags.`{CHILD_TAG}` = '{child}'"
    known = client().search_runs([experiment], condition, max_results=1)
    if known:
        return str(known[0].info.run_id), False
    tags = {
        RUN_KEY_TAG: run.key,
        CHILD_TAG: child,
        "pipeline.partition": f"{run.partition}",
        **tags,
        **git_tags(),
    }
    created = client().create_run(experiment, tags=tags, run_name=name)
    return str(created.info.run_id), True


@contextmanager
def active(run_id: str) -> Iterator[None]:
    """Make a run MLflow's active one in this thread, for the calls that know no other way."""
    import mlflow

    client()
    # Nesting keeps a run that the caller may have opened; the status stays ours to set.
    with mlflow.start_run(run_id=run_id, nested=True):
        yield


def log_params(run_id: str, params: Mapping[str, Any]) -> None:
    """Log parameters; logging the same values again is allowed."""
    from mlflow.entities import Param

    entities = [Param(key, redact(str(value))[:6000]) for key, value in params.items()]
    client().log_batch(run_id, params=entities)


def log_metrics(run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
    """Log metrics of one step."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    entities = [Metric(key, float(value), now, step) for key, value in metrics.items()]
    client().log_batch(run_id, metrics=entities)


def log_dataset(run_id: str, name: str, uri: str, fingerprint: str, rows: int) -> None:
    """Log a dataset as an input of a run: its address and fingerprint, never its rows."""
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.exceptions import MlflowException

    dataset = Dataset(
        name=name,
        digest=fingerprint,
        source_type="manifest",
        source=json.dumps({"uri": uri}),
        profile=json.dumps({"num_rows": rows}),
    )
    tags = [InputTag("mlflow.data.context", "training")]
    inputs = [DatasetInput(dataset, tags)]
    try:
        client().log_inputs(run_id, inputs)
    except MlflowException as error:
        # Candidates log the same dataset side by side, and MLflow looks before it creates: who
        # loses that race is told by the database that the dataset exists, and finds it there now.
        if error.error_code != "BAD_REQUEST":
            raise
        client().log_inputs(run_id, inputs)


def log_report(run: Run, html: str) -> None:
    """Keep the report page with the parent run."""
    client().log_text(run.tracking_run_id, html, "report.html")


def finish(run: Run, succeeded: bool) -> None:
    """Close the parent run as finished or failed."""
    client().set_terminated(run.tracking_run_id, "FINISHED" if succeeded else "FAILED")


def git_tags() -> dict[str, str]:
    """Return the commit of the checkout, or of the image, as MLflow tags; empty without either."""
    commit, _, dirty = (os.environ.get("PIPELINE_COMMIT") or _git_commit()).partition("-")
    if not commit:
        return {}
    return {"mlflow.source.git.commit": commit, "git.dirty": "true" if dirty else "false"}


@functools.cache
def _git_commit() -> str:
    """Return the commit of the checkout, followed by -dirty where tracked files were changed."""
    # Without tags, what remains is the bare commit.
    describe = ["describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    command = ["git", "-C", str(project_root()), *describe]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
