"""A Kubeflow cluster: upload the pipelines, set their schedules, start runs of past partitions.

`python -m PACKAGE.orchestration.kubeflow.cluster training 2026-01-28` starts a run of each one.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...core.errors import SettingsError
from ...core.settings import load_environment, load_settings
from ..runs import refuse_catchup
from .step import PREVIOUS


def connect() -> Any:
    """Return a client of the cluster at $KFP_ENDPOINT, with $KFP_TOKEN if it asks for one."""
    from kfp import Client

    load_environment()
    return Client(
        host=os.environ["KFP_ENDPOINT"],
        existing_token=os.environ.get("KFP_TOKEN") or None,
        namespace=os.environ.get("KFP_NAMESPACE", "kubeflow"),
    )


def name_of(pipeline: str) -> str:
    """Return what a pipeline is called on the cluster."""
    return f"{load_settings().project.slug or 'pipeline'}-{pipeline}"


def publish(files: dict[str, Path]) -> list[tuple[str, str]]:
    """Upload compiled pipelines and set their schedules; doing it again changes nothing.

    Returns:
        Where to look: one label and address per row.
    """
    refuse_catchup("Kubeflow")
    refuse_other_zones()
    client = connect()
    ui = (os.environ.get("KFP_UI_URL") or os.environ["KFP_ENDPOINT"]).rstrip("/")
    shown = [("Kubeflow", ui)]
    for pipeline, file in files.items():
        pipeline_id, version_id = upload(client, name_of(pipeline), file)
        cron = set_schedule(client, pipeline, pipeline_id, version_id)
        shown.append((f"  {pipeline}", f"{ui}/#/pipelines/details/{pipeline_id}"))
        shown.append(("    starts", cron or "by hand only"))
    return shown


def refuse_other_zones() -> None:
    """Refuse schedules in another zone than UTC, before one that is there is replaced.

    Raises:
        SettingsError: There is one.
    """
    schedule = load_settings().schedule
    if schedule.time_zone != "UTC" and (schedule.training or schedule.inference):
        raise SettingsError(
            f"[schedule] time_zone is '{schedule.time_zone}', but Kubeflow counts in UTC: write "
            "the cron expressions in UTC"
        )


def upload(client: Any, name: str, file: Path) -> tuple[str, str]:
    """Return the ids of a pipeline and of the version that holds this file, uploaded if new."""
    version_name = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    pipeline_id = client.get_pipeline_id(name)
    if pipeline_id is None:
        pipeline_id = client.upload_pipeline(str(file), name).pipeline_id
    versions = client.list_pipeline_versions(pipeline_id, page_size=100, sort_by="created_at desc")
    for version in versions.pipeline_versions or []:
        if version.display_name == version_name:
            return pipeline_id, version.pipeline_version_id
    version = client.upload_pipeline_version(str(file), version_name, pipeline_id=pipeline_id)
    return pipeline_id, version.pipeline_version_id


def set_schedule(client: Any, pipeline: str, pipeline_id: str, version_id: str) -> str:
    """Make a pipeline's recurring run what [schedule] says, and return its cron expression."""
    schedule = load_settings().schedule
    cron: str = getattr(schedule, pipeline)
    name = name_of(pipeline)
    experiment = client.create_experiment(load_settings().project.slug or "pipeline")
    experiment_id = experiment.experiment_id
    known = client.list_recurring_runs(experiment_id=experiment_id, page_size=100)
    if cron:
        client.create_recurring_run(
            experiment_id,
            name,
            # Kubeflow's begin with the second.
            cron_expression=f"0 {cron}",
            max_concurrency=1,
            # A run that was missed would take the same partition again.
            no_catchup=True,
            start_time=schedule.begins.isoformat(),
            end_time=schedule.ends.isoformat() if schedule.ends else None,
            params={"partition": PREVIOUS},
            pipeline_id=pipeline_id,
            version_id=version_id,
        )
    # Last: whatever ends this in between leaves one too many, which the next call removes.
    for recurring in known.recurring_runs or []:
        if recurring.display_name == name:
            client.delete_recurring_run(recurring.recurring_run_id)
    return cron


def start_runs(pipeline: str, partitions: Sequence[str]) -> list[str]:
    """Start a run of the pipeline's newest version for each partition, and return the runs' ids."""
    client = connect()
    experiment = client.create_experiment(load_settings().project.slug or "pipeline")
    pipeline_id = client.get_pipeline_id(name_of(pipeline))
    if pipeline_id is None:
        raise SystemExit(f"no '{name_of(pipeline)}' there: upload it with `uv run poe up`")
    versions = client.list_pipeline_versions(pipeline_id, page_size=1, sort_by="created_at desc")
    return [
        client.run_pipeline(
            experiment.experiment_id,
            f"{name_of(pipeline)} {partition}",
            params={"partition": partition},
            pipeline_id=pipeline_id,
            version_id=versions.pipeline_versions[0].pipeline_version_id,
        ).run_id
        for partition in partitions
    ]


if __name__ == "__main__":
    for started in start_runs(sys.argv[1], sys.argv[2:]):
        print(started)
