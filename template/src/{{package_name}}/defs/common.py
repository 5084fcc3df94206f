"""What all assets share: partitions, retries, and the way from an asset to its stage."""

import functools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any, TypeAlias

import dagster as dg
from upath import UPath

from ..core import storage
from ..core.errors import DataRejected, MissingPartitions, PipelineError
from ..core.settings import load_settings
from ..orchestration.runs import key_of_run
from ..sources.files import list_partitions
from ..stages import run_stage

# A stage's reference as JSON.
Reference: TypeAlias = Any

SETTINGS = load_settings()
LIMITS = SETTINGS.limits
OWNERS = [f"team:{SETTINGS.project.owner}"]
TAGS = {"project": SETTINGS.project.slug}

# The day of today is one of them, for sources that are filled during the day.
PARTITIONS = dg.DailyPartitionsDefinition(f"{SETTINGS.schedule.start_date}", end_offset=1)

RETRIES = dg.RetryPolicy(
    max_retries=LIMITS.retries,
    delay=LIMITS.retry_delay_seconds,
    backoff=dg.Backoff.EXPONENTIAL,
)

# Which stage makes an asset; every other asset is a candidate, which `train` makes.
STAGES = {
    "run": "start",
    "raw": "ingest",
    "valid": "validate",
    "features": "featurize",
    "challenger": "select",
    "evaluation": "evaluate",
    "promotion": "promote",
    "scores": "score",
    "monitoring": "monitor",
}

# Everything that makes an asset of these pipelines; `key` and `ins` are left to say.
stage_asset = functools.partial(
    dg.asset, partitions_def=PARTITIONS, retry_policy=RETRIES, owners=OWNERS, tags=TAGS
)


class References(dg.IOManager):
    """Keeps each asset's reference as JSON in the artefact store, where every worker reads it."""

    def handle_output(self, context: dg.OutputContext, obj: Reference) -> None:
        """Write a reference."""
        path = reference_path(context.asset_key.path, context.asset_partition_key)
        storage.write_text(path, json.dumps(obj))

    def load_input(self, context: dg.InputContext) -> Reference:
        """Read a reference; None, which the stage will name, where its asset was never made."""
        return read_reference(context.asset_key.path, context.asset_partition_key)


def reference_path(key: Sequence[str], partition: str) -> UPath:
    """Return where the reference of an asset's partition is kept."""
    return storage.artifact_path("dagster", *key, f"{partition}.json")


def read_reference(key: Sequence[str], partition: str) -> Reference:
    """Return the newest reference of an asset's partition, or None."""
    path = reference_path(key, partition)
    return json.loads(path.read_text()) if path.exists() else None


def call(stage: str, *arguments: Any) -> Reference:
    """Run a stage and return its reference.

    Raises:
        Failure: The stage raised a `PipelineError`, so trying again cannot help.
    """
    try:
        return run_stage(stage, *arguments)
    except PipelineError as error:
        raise failure(error) from error


def failure(error: PipelineError) -> dg.Failure:
    """Return the failure that ends a run at once; its metadata is what the alert is made of."""
    metadata: dict[str, Any] = {}
    if isinstance(error, DataRejected):
        metadata = {
            "partition": error.partition,
            "problems": error.problems,
            "report": error.report_uri,
        }
    return dg.Failure(f"{type(error).__name__}: {error}", metadata, allow_retries=False)


def output(reference: Reference, metadata: Mapping[str, Any] | None = None) -> dg.Output[Reference]:
    """Return an asset's reference, with what the UI shows of it."""
    shown: dict[str, Any] = {}
    if "rows" in reference:
        shown["dagster/row_count"] = reference["rows"]
    if "uri" in reference:
        shown["uri"] = dg.MetadataValue.path(reference["uri"])
    if "reasons" in reference:
        shown["reasons"] = dg.MetadataValue.md(
            "\n".join(f"- {reason}" for reason in reference["reasons"])
        )
    shown |= reference.get("metrics", {})
    return dg.Output(reference, metadata=shown | dict(metadata or {}))


def run_asset(pipeline: str) -> dg.AssetsDefinition:
    """Return the asset that begins a run: it waits for the partition and opens the MLflow run."""

    @stage_asset(key=[pipeline, "run"], group_name=pipeline, kinds={"mlflow"}, deps=[SOURCE])
    def run(context: dg.AssetExecutionContext) -> dg.Output[Reference]:
        """The run in MLflow that records this run, opened once the partition is at the source."""
        from ..core import tracking
        from ..orchestration.dagster.local import run_address

        try:
            wait_for_partition(date.fromisoformat(context.partition_key))
        except MissingPartitions as error:
            raise failure(error) from error
        # The same for a re-execution, which so continues the MLflow run.
        run_id = context.run.root_run_id or context.run.run_id
        key = key_of_run(pipeline, run_id)
        started = call("start", pipeline, context.partition_key, key, run_address(run_id))
        url = tracking.run_url(started["tracking_run_id"])
        return output(started, {"MLflow run": dg.MetadataValue.url(url), "run key": key})

    return run


SOURCE = dg.AssetSpec(
    "source",
    description=f"One file a day at `{SETTINGS.data.source}`.",
    partitions_def=PARTITIONS,
    owners=OWNERS,
    tags=TAGS,
)


def wait_for_partition(day: date) -> None:
    """Return once the source holds the partition.

    Raises:
        MissingPartitions: It did not arrive in time.
    """
    # Not by `RetryRequested`: Dagster's multiprocess executor keeps a processor busy until then.
    settings = load_settings()
    minutes = settings.limits.wait_timeout_minutes
    deadline = time.monotonic() + 60 * minutes
    while day not in list_partitions(settings):
        if time.monotonic() > deadline:
            raise MissingPartitions(
                f"partition {day} did not arrive at '{settings.data.source}' in {minutes:g} minutes"
            )
        time.sleep(settings.limits.wait_interval_seconds)


def data_assets(
    pipeline: str, prefix: Sequence[str], attempt: int = 1, after: Sequence[str] | None = None
) -> list[dg.AssetsDefinition]:
    """Return the assets from raw data to features.

    Args:
        pipeline: Whose run they belong to.
        prefix: What their keys begin with.
        attempt: 2 takes the wider window of partitions.
        after: Key of an evaluation; unless it asks for more data, all this is skipped.
    """
    asset = functools.partial(stage_asset, group_name=prefix[-1], kinds={"parquet"})
    begun = {"run": dg.AssetIn([pipeline, "run"])}
    decided = {"evaluation": dg.AssetIn(after)} if after else {}
    valid_key = dg.AssetKey([*prefix, "valid"])
    contract = dg.AssetCheckSpec(
        "data_contract",
        asset=valid_key,
        # Where Dagster may skip it, it would warn of that; rejected data stops the run anyway.
        blocking=after is None,
        description="Rows, columns and distributions are within the limits of [validation].",
    )

    @asset(key=[*prefix, "raw"], ins=begun | decided, output_required=after is None)
    def raw(run: Reference, **decided: Reference) -> Iterator[Any]:
        """A snapshot of the window's partitions."""
        if after is None or decided["evaluation"]["decision"] == "retrain":
            yield output(call("ingest", run, attempt))

    @asset(key=valid_key, ins=begun | {"raw": dg.AssetIn([*prefix, "raw"])}, check_specs=[contract])
    def valid(run: Reference, raw: Reference) -> Iterator[Any]:
        """The rows that keep the data contract; rejected data ends the run."""
        try:
            reference = run_stage("validate", run, raw)
        except DataRejected as error:
            report: dict[str, Any] = {"report": error.report_uri, "problems": error.problems}
            yield dg.AssetCheckResult(passed=False, metadata=report, description=str(error))
            raise failure(error) from error
        except PipelineError as error:
            raise failure(error) from error
        yield dg.AssetCheckResult(passed=True, metadata=reference["metrics"])
        yield output(reference)

    @asset(key=[*prefix, "features"], ins=begun | {"valid": dg.AssetIn(valid_key)})
    def features(run: Reference, valid: Reference) -> dg.Output[Reference]:
        """Features, and the target where it is known."""
        return output(call("featurize", run, valid))

    return [raw, valid, features]
