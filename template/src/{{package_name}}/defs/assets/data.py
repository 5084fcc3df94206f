"""What both pipelines begin with: the source, the run, and its data up to the features."""

import functools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from ...core import tracking
from ...core.errors import DataRejected, MissingPartitions, PipelineError
from ...core.outcomes import Window
from ...core.settings import load_settings
from ...orchestration.runs import arrived, key_of_run
from ...stages import run_stage
from ..partitions import PARTITIONS, partition_of
from ..resources import Reference
from ..stage_assets import OWNERS, SETTINGS, TAGS, call, failure, output, own_assets, stage_asset
from ..ui import run_address

asset = functools.partial(stage_asset, kinds={"parquet"})

SOURCE = dg.AssetSpec(
    "source",
    description=f"The partitions at `{SETTINGS.data.address}`.",
    partitions_def=PARTITIONS,
    owners=OWNERS,
    tags=TAGS,
)


def run_asset(pipeline: str) -> dg.AssetsDefinition:
    """Return the asset that begins a run: it waits for the partition and opens the MLflow run."""

    @stage_asset(key=[pipeline, "run"], group_name=pipeline, kinds={"mlflow"}, deps=[SOURCE])
    def run(context: dg.AssetExecutionContext) -> dg.Output[Reference]:
        """The run in MLflow that records this run, opened once the partition is at the source."""
        partition = partition_of(context.partition_key)
        try:
            wait_for_partition(partition)
        except MissingPartitions as error:
            raise failure(error) from error
        # The same for a re-execution, which so continues the MLflow run.
        run_id = context.run.root_run_id or context.run.run_id
        key = key_of_run(pipeline, run_id)
        started = call("start", pipeline, partition, key, run_address(run_id))
        url = tracking.run_url(started["tracking_run_id"])
        return output(started, {"MLflow run": dg.MetadataValue.url(url), "run key": key})

    return run


def wait_for_partition(partition: str) -> None:
    """Return once the source holds the partition.

    Raises:
        MissingPartitions: It did not arrive in time.
    """
    # Not by `RetryRequested`: Dagster's multiprocess executor keeps a processor busy until then.
    settings = load_settings()
    minutes = settings.limits.wait_timeout_minutes
    deadline = time.monotonic() + 60 * minutes
    while arrived(partition) is None:
        if time.monotonic() > deadline:
            raise MissingPartitions(
                f"partition {partition} did not arrive at '{settings.data.address}' "
                f"in {minutes:g} minutes"
            )
        time.sleep(settings.limits.wait_interval_seconds)


def data_assets(
    pipeline: str,
    prefix: Sequence[str],
    size: Window = "normal",
    after: Sequence[str] | None = None,
) -> list[dg.AssetsDefinition]:
    """Return the assets from raw data to features.

    Args:
        pipeline: Whose run they belong to.
        prefix: What their keys begin with.
        size: Which window of partitions is taken.
        after: Key of an evaluation; unless it asks for more data, all this is skipped.
    """
    run = dg.AssetIn([pipeline, "run"])
    own = own_assets("validate", prefix, "valid")
    return [
        raw_asset(run, prefix, size, after),
        valid_asset(run, prefix, may_be_skipped=after is not None),
        *own,
        features_asset(run, prefix, own[-1:]),
    ]


def raw_asset(
    run: dg.AssetIn, prefix: Sequence[str], size: Window, after: Sequence[str] | None
) -> dg.AssetsDefinition:
    """Return the asset of the raw data."""
    decided = {"evaluation": dg.AssetIn(after)} if after else {}

    @asset(
        key=[*prefix, "raw"],
        ins={"run": run, **decided},
        output_required=after is None,
        group_name=prefix[-1],
    )
    def raw(run: Reference, **decided: Reference) -> Iterator[Any]:
        """A snapshot of the window's partitions."""
        if after is None or decided["evaluation"]["verdict"]["decision"] == "retrain":
            yield output(call("ingest", run, size))

    return raw


def valid_asset(
    run: dg.AssetIn, prefix: Sequence[str], may_be_skipped: bool
) -> dg.AssetsDefinition:
    """Return the asset of the valid rows, with the data contract as its check."""
    key = dg.AssetKey([*prefix, "valid"])
    contract = dg.AssetCheckSpec(
        "data_contract",
        asset=key,
        # Where Dagster may skip it, it would warn of that; rejected data stops the run anyway.
        blocking=not may_be_skipped,
        description="Rows, columns and distributions are within the limits of [validation].",
    )

    @asset(
        key=key,
        ins={"run": run, "raw": dg.AssetIn([*prefix, "raw"])},
        check_specs=[contract],
        group_name=prefix[-1],
    )
    def valid(run: Reference, raw: Reference) -> Iterator[Any]:
        """The rows that keep the data contract; rejected data ends the run."""
        try:
            reference = run_stage("validate", run, raw)
        except DataRejected as error:
            violations = [f"{violation}" for violation in error.violations]
            report: dict[str, Any] = {"report": error.report_uri, "violations": violations}
            yield dg.AssetCheckResult(passed=False, metadata=report, description=str(error))
            raise failure(error) from error
        except PipelineError as error:
            raise failure(error) from error
        yield dg.AssetCheckResult(passed=True, metadata=reference["metrics"])
        yield output(reference)

    return valid


def features_asset(
    run: dg.AssetIn, prefix: Sequence[str], after: Sequence[dg.AssetsDefinition]
) -> dg.AssetsDefinition:
    """Return the asset of the features, made after the team's own steps."""

    @asset(
        key=[*prefix, "features"],
        ins={"run": run, "valid": dg.AssetIn([*prefix, "valid"])},
        deps=after,
        group_name=prefix[-1],
    )
    def features(run: Reference, valid: Reference) -> dg.Output[Reference]:
        """Features, and the target where it is known."""
        return output(call("featurize", run, valid))

    return features
