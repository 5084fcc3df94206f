"""The one seam to MLflow: runs, the model registry, and links to both.

One parent run per pipeline run, opened by the start stage and passed on by its id; one child run
per candidate. Nothing here depends on MLflow's idea of an "active run" in another process.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .answers import TRACKING
from .errors import NoChampion, SettingsError
from .logs import get_logger
from .outcomes import Window
from .paths import project_root
from .redact import redact
from .refs import CandidateRef, Run
from .settings import load_environment, load_settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

log = get_logger(__name__)

CHAMPION = "champion"
PREVIOUS = "previous"
RUN_KEY_TAG = "pipeline.run_key"
CHILD_TAG = "pipeline.candidate"
ENGINE_URL_TAG = "pipeline.engine_url"
FINGERPRINT_TAG = "fingerprint"


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
    known = _find_run(f"tags.`{RUN_KEY_TAG}` = '{run.key}' and tags.`{CHILD_TAG}` = ''")
    if known is not None:
        client().update_run(known, status="RUNNING")
        return known
    tags = {
        RUN_KEY_TAG: run.key,
        CHILD_TAG: "",
        "pipeline.name": run.pipeline,
        "pipeline.partition": f"{run.partition}",
        **git_tags(),
    }
    if engine_url:
        tags |= {ENGINE_URL_TAG: engine_url, "mlflow.note.content": f"[Engine]({engine_url})"}
    name = f"{run.pipeline} {run.partition}"
    run_id = str(client().create_run(experiment_id(), tags=tags, run_name=name).info.run_id)
    log_params(run_id, _flatten(run.settings.model_dump(mode="json")))
    installed = sorted({f"{dist.name}=={dist.version}" for dist in metadata.distributions()})
    client().log_text(run_id, "\n".join(installed) + "\n", "environment.txt")
    return run_id


def open_child(run: Run, candidate: str, window: Window) -> str:
    """Open the run of one candidate below the parent; a retry gets the same one again."""
    child = candidate if window == "normal" else f"{candidate} (wider window)"
    known = _find_run(f"tags.`{RUN_KEY_TAG}` = '{run.key}' and tags.`{CHILD_TAG}` = '{child}'")
    if known is not None:
        return known
    tags = {
        "mlflow.parentRunId": run.tracking_run_id,
        RUN_KEY_TAG: run.key,
        CHILD_TAG: child,
        "pipeline.partition": f"{run.partition}",
        **git_tags(),
    }
    created = client().create_run(experiment_id(), tags=tags, run_name=child)
    return str(created.info.run_id)


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
    import time

    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    entities = [Metric(key, float(value), now, step) for key, value in metrics.items()]
    client().log_batch(run_id, metrics=entities)


def log_dataset(run_id: str, name: str, uri: str, fingerprint: str, rows: int) -> None:
    """Log a dataset as an input of a run: its address and fingerprint, never its rows."""
    import json

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
    except MlflowException:
        # Candidates log the same dataset side by side, and MLflow looks before it creates: who
        # lost that race finds it there now.
        client().log_inputs(run_id, inputs)


def log_report(run: Run, html: str) -> None:
    """Keep the report page with the parent run."""
    client().log_text(run.tracking_run_id, html, "report.html")


def finish(run: Run, succeeded: bool) -> None:
    """Close the parent run as finished or failed."""
    client().set_terminated(run.tracking_run_id, "FINISHED" if succeeded else "FAILED")


def model_name() -> str:
    """Return the project's name in the model registry."""
    return load_settings().project.slug


def version_of(alias: str) -> ModelVersion | None:
    """Return the registered version behind an alias, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return client().get_model_version_by_alias(model_name(), alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def require_champion() -> ModelVersion:
    """Return the champion.

    Raises:
        NoChampion: No model has passed the gates yet.
    """
    champion = version_of(CHAMPION)
    if champion is None:
        raise NoChampion(
            f"model '{model_name()}' has no champion: run the training pipeline until a candidate "
            "passes the gates"
        )
    return champion


def register(candidate: CandidateRef) -> int:
    """Return the registry version of a candidate, registered unless an equal one already is."""
    from mlflow.exceptions import MlflowException

    name = model_name()
    known = client().search_model_versions(f"name = '{name}'")
    for version in known:
        if version.tags.get(FINGERPRINT_TAG) == candidate.fingerprint:
            return int(version.version)
    try:
        client().create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    created = client().create_model_version(
        name,
        candidate.model_uri,
        run_id=candidate.tracking_run_id,
        model_id=candidate.model_uri.removeprefix("models:/"),
        tags={
            FINGERPRINT_TAG: candidate.fingerprint,
            "candidate": candidate.candidate,
            "trained_until": f"{candidate.trained_until}",
            "reference_uri": candidate.reference_uri,
        },
    )
    return int(created.version)


def promote(version: int) -> int | None:
    """Make a version the champion, keep the former one as `previous`, and return the former one.

    Doing it again changes nothing.
    """
    current = version_of(CHAMPION)
    if current is not None and int(current.version) == version:
        previous = version_of(PREVIOUS)
        return int(previous.version) if previous else None
    if current is not None:
        client().set_registered_model_alias(model_name(), PREVIOUS, str(current.version))
    client().set_registered_model_alias(model_name(), CHAMPION, str(version))
    return int(current.version) if current else None


def rollback() -> tuple[int, int]:
    """Put the previous champion back; the present one becomes `previous`.

    Returns:
        The version that is champion now, and the one that was.

    Raises:
        NoChampion: There is no champion, or no previous one.
    """
    current, previous = require_champion(), version_of(PREVIOUS)
    if previous is None:
        raise NoChampion(f"model '{model_name()}' has no previous champion to put back")
    promote(int(previous.version))
    return int(previous.version), int(current.version)


def load_model(uri: str) -> Any:
    """Load a scikit-learn model from MLflow, by run or by registry address."""
    import mlflow.sklearn

    client()
    return mlflow.sklearn.load_model(uri)


def git_tags() -> dict[str, str]:
    """Return the commit of the checkout, or of the image, as MLflow tags; empty without either."""
    built_from, _, dirty = os.environ.get("PIPELINE_COMMIT", "").partition("-")
    if built_from:
        return {"mlflow.source.git.commit": built_from, "git.dirty": "true" if dirty else "false"}
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return {}
    changed = "true" if _git("status", "--porcelain", "--untracked-files=no") else "false"
    return {"mlflow.source.git.commit": commit, "git.dirty": changed}


@functools.cache
def _git(*args: str) -> str:
    command = ["git", "-C", str(project_root()), *args]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _find_run(condition: str) -> str | None:
    runs = client().search_runs([experiment_id()], condition, max_results=1)
    return str(runs[0].info.run_id) if runs else None


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
