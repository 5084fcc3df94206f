"""MLflow runs of the pipelines, with their models: listed, and removed for good."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import tracking
from .errors import StoreError
from .mlflow_address import store_file

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run

# This many ids fit into one command.
AT_ONCE = 2_000


@dataclass(frozen=True)
class TrackedRun:
    """A run of a pipeline in MLflow, or of a candidate.

    Attributes:
        key: Of the pipeline's run, see `refs.Run`.
        child: The candidate; empty for the pipeline's own.
        models: What it has logged.
    """

    run: Run
    key: str
    child: str
    models: tuple[LoggedModel, ...]

    @property
    def is_active(self) -> bool:
        """Whether it has not been deleted."""
        return bool(self.run.info.lifecycle_stage == "active")

    @property
    def started(self) -> datetime:
        """When it started."""
        return datetime.fromtimestamp(self.run.info.start_time / 1000, UTC)

    @property
    def ended(self) -> datetime:
        """When it ended; if it has not, when it started."""
        end = self.run.info.end_time
        return datetime.fromtimestamp(end / 1000, UTC) if end else self.started

    @property
    def size(self) -> int:
        """The bytes of its files and models; 0 where they are not on this machine."""
        from .mlflow_artifacts import ROOT, ArtifactsBesideStore

        places = [self.run.info.artifact_uri, *(one.artifact_location for one in self.models)]
        folders = [ArtifactsBesideStore(at).artifact_dir for at in places if at.startswith(ROOT)]
        files = (file for folder in folders for file in Path(folder).rglob("*"))
        return sum(file.stat().st_size for file in files if file.is_file())


def why_space_stays() -> str:
    """Return why MLflow keeps the space of deleted runs; empty if it is freed here."""
    from mlflow.entities import ViewType

    if store_file() is None:
        return "MLflow's server marks runs as deleted: its operator runs `mlflow gc` there"
    if tracking.client().search_experiments(ViewType.DELETED_ONLY):
        return "MLflow keeps the space: `mlflow gc` would also remove its deleted experiments"
    return ""


def tracked_runs(with_deleted: bool) -> list[TrackedRun]:
    """Return the runs of all pipelines and candidates, the candidates' first."""
    from mlflow.entities import ViewType

    client, experiments = tracking.client(), [tracking.experiment_id()]
    models: dict[str, list[LoggedModel]] = {}
    for model in pages(client.search_logged_models, experiment_ids=experiments):
        models.setdefault(model.source_run_id, []).append(model)
    view = ViewType.ALL if with_deleted else ViewType.ACTIVE_ONLY
    found = []
    for run in pages(client.search_runs, experiment_ids=experiments, run_view_type=view):
        key, child = (run.data.tags.get(tag) for tag in (tracking.RUN_KEY_TAG, tracking.CHILD_TAG))
        # Others are the team's own.
        if key is not None and child is not None:
            found.append(TrackedRun(run, key, child, tuple(models.get(run.info.run_id, ()))))
    return sorted(found, key=lambda one: not one.child)


def pages(search: Callable[..., Any], **arguments: Any) -> Iterator[Any]:
    """Yield what a search of MLflow's client finds, page by page."""
    page = search(**arguments)
    yield from page
    while page.token:
        page = search(**arguments, page_token=page.token)
        yield from page


def remove(runs: Sequence[TrackedRun], free_space: bool) -> None:
    """Delete runs and their models; a second call finishes an interrupted one.

    Args:
        runs: Which, the candidates' first.
        free_space: Let MLflow's own command remove them from the local store.

    Raises:
        StoreError: That command failed.
    """
    client = tracking.client()
    for one in runs:
        for model in one.models:
            client.delete_logged_model(model.model_id)
        if one.is_active:
            client.delete_run(one.run.info.run_id)
    if not free_space:
        return
    # The command removes runs, then all deleted models: if it is killed in between, the second
    # command, which has no models to remove, does it.
    for part in ([one for one in runs if one.child], [one for one in runs if not one.child]):
        ids = [one.run.info.run_id for one in part]
        for first in range(0, len(ids), AT_ONCE):
            _collect(ids[first : first + AT_ONCE])


def _collect(run_ids: Sequence[str]) -> None:
    uri = tracking.tracking_uri()
    command = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", uri]
    command += ["--tracking-uri", uri, "--run-ids", ",".join(run_ids)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = f"{done.stdout}\n{done.stderr}".strip().splitlines()
        # SQLAlchemy says more after it, like the statement.
        reason = next((line for line in reversed(lines) if "Error" in line), lines[-1])
        raise StoreError(f"`mlflow gc` failed, so prune again: {reason}")
