"""Inference: the champion predicts a partition, which is watched for drift."""

import functools
from collections.abc import Iterator
from typing import Any

import dagster as dg

from ..resources import Reference
from ..stage_assets import call, output, own_assets, reasons_of, stage_asset
from .data import data_assets, run_asset

RUN_KEY = dg.AssetKey(["inference", "run"])
RUN = dg.AssetIn(RUN_KEY)
FEATURES = dg.AssetIn(["inference", "features"])
SCORES = dg.AssetKey(["inference", "scores"])
MONITORING = dg.AssetKey(["inference", "monitoring"])

OWN = own_assets("score", ["inference"], "scores")

asset = functools.partial(stage_asset, group_name="inference")


@asset(
    key=SCORES,
    ins={"run": RUN, "features": FEATURES},
    kinds={"parquet"},
    # For the lineage; the champion is not made by this pipeline.
    deps=["champion"],
)
def scores(run: Reference, features: Reference) -> dg.Output[Reference]:
    """The champion's predictions of the partition."""
    scored = call("score", run, features)
    return output(scored, {"model version": scored["model_version"]})


@asset(
    key=MONITORING,
    ins={"run": RUN, "features": FEATURES, "scores": dg.AssetIn(SCORES)},
    deps=OWN[-1:],
    kinds={"scipy"},
    check_specs=[
        dg.AssetCheckSpec(
            "champion_is_fit",
            asset=MONITORING,
            description="Drift and live performance are within the limits of [monitoring].",
        )
    ],
)
def monitoring(run: Reference, features: Reference, scores: Reference) -> Iterator[Any]:
    """Drift and live performance; too much of it starts training for the same partition."""
    monitored = call("monitor", run, features, scores)
    yield dg.AssetCheckResult(
        passed=not monitored["retrain"],
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"reasons": reasons_of(monitored)},
    )
    live = {f"live {name}": value for name, value in monitored["live_metrics"].items()}
    drifted = {"drifted": monitored["drift"]["drifted"], "retrain": monitored["retrain"]}
    yield output(monitored, live | drifted)


assets = [
    run_asset("inference"),
    *data_assets("inference", ["inference"]),
    scores,
    *OWN,
    monitoring,
]
