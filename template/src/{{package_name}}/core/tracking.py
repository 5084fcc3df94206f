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
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from .logs import get_logger
from .mlflow_address import store_file
from .mlflow_address import tracking_uri as tracking_uri
from .outcomes import Window
from .paths import project_root
from .redact import redact
from .refs import Run
from .settings import load_settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = get_logger(__name__)

RUN_KEY_TAG = "pipeline.run_key"
CHILD_TAG = "pipeline.candidate"
ENGINE_URL_TAG = "pipeline.engine_url"
PARENT_TAG = "mlflow.parentRunId"


@functools.cache
def client() -> MlflowClient:
    """Return the client, connected once per process; the first call creates a local store."""
    # Exactly "true" is what MLflow looks for.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    import mlflow

    # It warns about deliberate choices: pickled models, pinned requirements.
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    # It also logs what it raises, with an SQL statement.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    uri = tracking_uri()
    if file := store_file():
        from .mlflow_store import open_store

        open_store(file)
    mlflow.set_tracking_uri(uri)
    # The shell's may be another deployment's; an earlier connection's may also still be set.
    if os.environ.get("MLFLOW_REGISTRY_URI", uri) != uri:
        log.warning("MLFLOW_REGISTRY_URI is not used: models are registered where runs are tracked")
    mlflow.set_registry_uri(uri)
    return mlflow.MlflowClient()


def experiment_id() -> str:
    """Return the project's experiment, created at the first call, restored where it was deleted."""
    from mlflow.exceptions import MlflowException

    name = load_settings().project.slug
    experiment = client().get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client().create_experiment(name, artifact_location=_artifact_location()))
        except MlflowException as error:
            # Another first run was faster.
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return experiment_id()
    if experiment.lifecycle_stage == "deleted":
        log.warning("experiment '%s' was deleted in MLflow: it is restored, its runs too", name)
        client().restore_experiment(experiment.experiment_id)
    return str(experiment.experiment_id)


def _artifact_location() -> str | None:
    """Return where runs keep files; None where the server knows."""
    if store_file() is None:
        return None
    from .mlflow_artifacts import ROOT

    return ROOT


def run_url(run_id: str) -> str:
    """Return the address of a run's page in the MLflow UI, at $MLFLOW_UI_URL where that is set.

    MLflow is not queried: an alert about a hanging server must not wait for it.
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


def open_run(
    run: Run, engine_url: str | None = None, more_tags: Mapping[str, str] | None = None
) -> str:
    """Open the parent run of a pipeline run, or open it again if that key is known.

    Logs the settings, the git commit and the versions of all installed packages, and where the
    engine shows the run. A key that is run again with other settings gets another run beside it.
    A new run has `more_tags` from its first moment.
    """
    import polars as pl

    tags: dict[str, str] = {"pipeline.name": run.pipeline, **(more_tags or {})}
    if engine_url:
        tags |= {ENGINE_URL_TAG: engine_url, "mlflow.note.content": f"[Engine]({engine_url})"}
    settings = pl.json_normalize(run.settings.model_dump(mode="json")).row(0, named=True)
    name = f"{run.pipeline} {run.partition}"
    run_id, is_new = _find_or_create(run, _Kind("", name, tags), settings)
    if not is_new:
        client().update_run(run_id, status="RUNNING")
        return run_id
    log_params(run_id, settings)
    installed = sorted({f"{dist.name}=={dist.version}" for dist in metadata.distributions()})
    client().log_text(run_id, "\n".join(installed) + "\n", "environment.txt")
    return run_id


def open_child(
    run: Run, candidate: str, window: Window, params: Mapping[str, Any], fingerprint: str
) -> str:
    """Open the run of one candidate below the parent; a retry gets the same one again.

    With other parameters, or features of another fingerprint, it is another attempt: MLflow
    changes nothing that was logged.
    """
    name = candidate if window == "normal" else f"{candidate} (wider window)"
    kind = _Kind(name, name, {PARENT_TAG: run.tracking_run_id})
    return _find_or_create(run, kind, params, fingerprint)[0]


class _Kind(NamedTuple):
    """Which MLflow run of a pipeline run: the parent, whose `child` is empty, or a candidate's."""

    child: str
    name: str
    tags: dict[str, str]


def _find_or_create(
    run: Run, kind: _Kind, params: Mapping[str, Any], fingerprint: str = ""
) -> tuple[str, bool]:
    """Return the id of an MLflow run that these parameters and data fit, and whether it is new."""
    experiment = experiment_id()
    condition = f"tags.`{RUN_KEY_TAG}` = '{run.key}' and tags.`{CHILD_TAG}` = '{kind.child}'"
    known = client().search_runs([experiment], condition)
    for one in known:
        inputs = one.inputs.dataset_inputs if one.inputs else []
        digests = {given.dataset.digest for given in inputs}
        same = one.data.params.items() <= _as_text(params).items() and digests <= {fingerprint}
        if same and one.data.tags.get(PARENT_TAG) == kind.tags.get(PARENT_TAG):
            return str(one.info.run_id), False
    attempt = {} if not known else {"pipeline.attempt": f"{len(known) + 1}"}
    tags = {
        RUN_KEY_TAG: run.key,
        CHILD_TAG: kind.child,
        "pipeline.partition": f"{run.partition}",
        **kind.tags,
        **attempt,
        **git_tags(),
    }
    name = f"{kind.name}, attempt {len(known) + 1}" if known else kind.name
    created = client().create_run(experiment, tags=tags, run_name=name)
    return str(created.info.run_id), True


@contextmanager
def active(run_id: str) -> Iterator[None]:
    """Make a run MLflow's active one in this thread, for calls that need one."""
    import mlflow

    client()
    # Nesting keeps a run that the caller may have opened; we still set the status.
    with mlflow.start_run(run_id=run_id, nested=True):
        yield


def log_params(run_id: str, params: Mapping[str, Any]) -> None:
    """Log parameters; logging the same values again is allowed."""
    from mlflow.entities import Param

    entities = [Param(key, value) for key, value in _as_text(params).items()]
    client().log_batch(run_id, params=entities)


def _as_text(params: Mapping[str, Any]) -> dict[str, str]:
    """Return parameters as MLflow keeps them, without secrets."""
    return {key: redact(str(value))[:6000] for key, value in params.items()}


def log_metrics(run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
    """Log metrics of one step; characters that MLflow rejects in names become `_`."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    named = {re.sub(r"[^/\w.\- :]", "_", key)[:250]: value for key, value in metrics.items()}
    entities = [Metric(key, float(value), now, step) for key, value in named.items()]
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
        # Candidates log the same dataset side by side, and MLflow looks before it creates:
        # the loser of that race gets an error that the dataset exists, and finds it on a retry.
        if error.error_code != "BAD_REQUEST":
            raise
        client().log_inputs(run_id, inputs)


def log_report(run: Run, html: str) -> None:
    """Keep the report page with the parent run."""
    client().log_text(run.tracking_run_id, html, "report.html")


def finish(run: Run, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
    """Close the parent run."""
    client().set_terminated(run.tracking_run_id, status)


def git_tags() -> dict[str, str]:
    """Return the commit of the checkout, or of the image, as MLflow tags; empty without either."""
    commit, _, dirty = (os.environ.get("PIPELINE_COMMIT") or _git_commit()).partition("-")
    if not commit:
        return {}
    return {"mlflow.source.git.commit": commit, "git.dirty": "true" if dirty else "false"}


@functools.cache
def _git_commit() -> str:
    """Return the commit of the checkout, followed by -dirty where tracked files were changed."""
    # Without tags, only the commit remains.
    describe = ["describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    command = ["git", "-C", str(project_root()), *describe]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
