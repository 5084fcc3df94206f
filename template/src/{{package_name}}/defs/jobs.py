"""The jobs: training and inference of a partition, and the report of a run that has ended."""

from typing import Any, TypeAlias

import dagster as dg

from ..core import storage
from ..interface import STEPS_FOLLOW, load_steps
from .partitions import key_of
from .resources import Reference
from .stage_assets import LIMITS, RETRIES, TAGS, call

# The type of what `define_asset_job` returns; Dagster does not export it.
UnresolvedAssetJob: TypeAlias = Any

# Each step is limited by its stage; this is for what no stage can limit, like a lost machine.
STEPS_IN_A_ROW = 14 + sum(2 * len(load_steps().after(stage)) for stage in STEPS_FOLLOW)
MAX_RUNTIME_MINUTES = LIMITS.wait_timeout_minutes + (
    STEPS_IN_A_ROW * (1 + LIMITS.retries) * LIMITS.stage_timeout_minutes
)


def pipeline_job(name: str, description: str) -> UnresolvedAssetJob:
    """Return the job that runs a whole pipeline."""
    return dg.define_asset_job(
        name,
        selection=dg.AssetSelection.key_prefixes(name),
        description=description,
        tags=TAGS | {"pipeline": name, "dagster/max_runtime": f"{60 * MAX_RUNTIME_MINUTES:.0f}"},
    )


training = pipeline_job("training", "Train candidates and promote the best if the gates hold.")
inference = pipeline_job("inference", "Score a partition with the champion and watch for drift.")


class Ended(dg.Config):
    """A run that has ended.

    Attributes:
        run: The reference of the run, as its first asset made it.
        failed: Stages that failed, as far as Dagster knows.
    """

    run: dict[str, str]
    failed: list[str]


def report_config(run: Reference, failed: list[str]) -> dict[str, Any]:
    """Return the run configuration of the report job."""
    return {"ops": {"write_report": {"config": {"run": run, "failed": failed}}}}


@dg.op(retry_policy=RETRIES)
def write_report(context: dg.OpExecutionContext, config: Ended) -> None:
    """Write the report of a run and close its MLflow run."""
    written = call("report", config.run, config.failed)
    context.log_event(
        dg.AssetMaterialization(
            [config.run["pipeline"], "report"],
            partition=key_of(config.run["partition"]),
            metadata={
                "page": dg.MetadataValue.path(f"{storage.path_of(written['uri'])}"),
                "MLflow run": dg.MetadataValue.url(written["tracking_url"]),
                "succeeded": written["succeeded"],
                "failed stages": written["failed_stages"],
            },
        )
    )


@dg.job(description="Write the report of a run that has ended, whatever became of it.", tags=TAGS)
def report() -> None:
    """Wire the graph."""
    write_report()
