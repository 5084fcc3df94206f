"""What all steps share: partitions, retries, and the way from a step to its stage."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from ..core import storage
from ..core.errors import DataRejected, PipelineError, in_one_line
from ..core.outcomes import Verdict
from ..core.refs import MonitorRef
from ..core.settings import load_settings
from ..interface import load_steps
from ..stages import run_stage
from .partitions import PARTITIONS
from .resources import Reference

SETTINGS = load_settings()
LIMITS = SETTINGS.limits
OWNERS = [f"team:{SETTINGS.project.owner}"]
TAGS = {"project": SETTINGS.project.slug}

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

# What the keys of the assets have in common that steps of domain/steps.py make.
OWN = "steps"

# Everything that makes an asset of these pipelines; `key` and `ins` are left to say.
stage_asset = functools.partial(
    dg.asset, partitions_def=PARTITIONS, retry_policy=RETRIES, owners=OWNERS, tags=TAGS
)


@dataclass(frozen=True)
class Step:
    """What a step of a run does.

    Attributes:
        stage: The stage that it runs; its own name where it makes no asset.
        window: Which window of partitions it works on, where there are two.
        candidate: Which one it trains.
    """

    stage: str
    window: str | None = None
    candidate: str | None = None

    @classmethod
    def from_key(cls, key: str) -> Step:
        """Return the step that has a key, like training__window__linear."""
        # Dagster makes it from the asset's key, which begins with the pipeline.
        *prefix, name = key.split("__")
        if not prefix:
            return cls(name)
        if prefix[-1] == OWN:
            return cls(name, ".".join(prefix[1:-1]) or None)
        window = ".".join(prefix[1:]) or None
        if name in STAGES:
            return cls(STAGES[name], window)
        return cls("train", window, candidate=name)

    @property
    def label(self) -> str:
        """Its name for people, like window.ingest or window.train[linear]."""
        stage = f"{self.stage}[{self.candidate}]" if self.candidate else self.stage
        return f"{self.window}.{stage}" if self.window else stage


# The metadata of a step's failure that carries its rejected data.
REJECTION = "rejection"


def call(stage: str, *arguments: Any) -> Reference:
    """Run a stage and return its reference.

    Raises:
        Failure: The stage raised a `PipelineError`, so trying again cannot help.
    """
    try:
        return run_stage(stage, *arguments)
    except PipelineError as error:
        raise failure(error) from error


def own_assets(stage: str, prefix: Sequence[str], made: str) -> list[dg.AssetsDefinition]:
    """Return the assets of the steps of domain/steps.py that follow a stage, each after the other.

    Args:
        stage: The stage.
        prefix: What the keys of its assets begin with.
        made: The last part of the key of the asset that the stage makes.
    """
    assets: list[dg.AssetsDefinition] = []
    for name, function in load_steps().after(stage).items():
        about = function.__doc__ or f"`{name}` of domain/steps.py."
        assets.append(_own_asset(name, about, prefix, made, after=assets[-1:]))
    return assets


def _own_asset(
    name: str, about: str, prefix: Sequence[str], made: str, after: Sequence[dg.AssetsDefinition]
) -> dg.AssetsDefinition:
    @stage_asset(
        key=[*prefix, OWN, name],
        ins={"run": dg.AssetIn([prefix[0], "run"]), "reference": dg.AssetIn([*prefix, made])},
        deps=after,
        group_name=prefix[-1],
        description=about,
    )
    def own(run: Reference, reference: Reference) -> dg.Output[Reference]:
        return output(call(name, run, reference))

    return own


def failure(error: PipelineError) -> dg.Failure:
    """Return the failure that ends a run at once; the alert is made from it."""
    metadata: dict[str, dg.MetadataValue[Any]] = {}
    if isinstance(error, DataRejected):
        rejected = {
            "partition": error.partition,
            "violations": [violation.model_dump(mode="json") for violation in error.violations],
            "report_uri": error.report_uri,
        }
        metadata[REJECTION] = dg.MetadataValue.json(rejected)
    return dg.Failure(in_one_line(error), metadata, allow_retries=False)


def reasons_of(reference: Reference) -> list[str]:
    """Return why an evaluation or monitoring decided as it did, in sentences for people."""
    if "verdict" in reference:
        return [f"{reason}" for reason in Verdict.model_validate(reference["verdict"]).reasons]
    return [f"{reason}" for reason in MonitorRef.model_validate(reference).reasons]


def output(reference: Reference, metadata: Mapping[str, Any] | None = None) -> dg.Output[Reference]:
    """Return an asset's reference, with what the UI shows of it."""
    shown: dict[str, Any] = {}
    if "rows" in reference:
        shown["dagster/row_count"] = reference["rows"]
    if "uri" in reference:
        shown["uri"] = dg.MetadataValue.path(f"{storage.path_of(reference['uri'])}")
    if "verdict" in reference or "retrain" in reference:
        reasons = "\n".join(f"- {reason}" for reason in reasons_of(reference))
        shown["reasons"] = dg.MetadataValue.md(reasons)
    shown |= reference.get("metrics", {})
    return dg.Output(reference, metadata=shown | dict(metadata or {}))
