"""Training: from data to a new champion, if it is better than the present one."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from ...core import tracking
from ...core.outcomes import Window
from ..resources import Reference
from ..stage_assets import OWNERS, SETTINGS, TAGS, call, output, own_assets, reasons_of, stage_asset
from .data import data_assets, run_asset

CANDIDATES = SETTINGS.training.candidates
RUN = dg.AssetIn(["training", "run"])

asset = functools.partial(stage_asset, kinds={"scikitlearn"})

# Materialised when a new champion is promoted; other teams' assets may depend on it.
CHAMPION = dg.AssetSpec(
    "champion",
    description="The registered model that inference uses.",
    kinds={"mlflow"},
    owners=OWNERS,
    tags=TAGS,
)


def candidate_asset(prefix: Sequence[str], name: str) -> dg.AssetsDefinition:
    """Return the asset of one candidate."""

    @asset(
        key=[*prefix, name],
        ins={"run": RUN, "features": dg.AssetIn([*prefix, "features"])},
        group_name=prefix[-1],
        description=f"The candidate '{name}', tuned and fitted.",
    )
    def candidate(run: Reference, features: Reference) -> dg.Output[Reference]:
        trained = call("train", run, features, name)
        url = tracking.run_url(trained["tracking_run_id"])
        metadata = {
            "score": trained["score"],
            "parameters": trained["params"],
            "MLflow run": dg.MetadataValue.url(url),
        }
        return output(trained, metadata)

    return candidate


def challenger_asset(prefix: Sequence[str]) -> dg.AssetsDefinition:
    """Return the asset of the best candidate of a window."""

    @asset(
        key=[*prefix, "challenger"],
        ins={"run": RUN} | {name: dg.AssetIn([*prefix, name]) for name in CANDIDATES},
        group_name=prefix[-1],
    )
    def challenger(run: Reference, **candidates: Reference) -> dg.Output[Reference]:
        """The best candidate."""
        selected = call("select", run, [candidates[name] for name in CANDIDATES])
        return output(selected, {"candidate": selected["candidate"], "score": selected["score"]})

    return challenger


def evaluation_asset(prefix: Sequence[str]) -> dg.AssetsDefinition:
    """Return the asset that checks the challenger of a window against the gates."""
    key = dg.AssetKey([*prefix, "evaluation"])
    gates = dg.AssetCheckSpec(
        "gates", asset=key, description="The challenger holds all of [gates]."
    )

    @asset(
        key=key,
        ins={
            "run": RUN,
            "features": dg.AssetIn([*prefix, "features"]),
            "challenger": dg.AssetIn([*prefix, "challenger"]),
        },
        check_specs=[gates],
        group_name=prefix[-1],
    )
    def evaluation(run: Reference, features: Reference, challenger: Reference) -> Iterator[Any]:
        """The challenger's metrics on held-out rows, beside the champion's."""
        evaluated = call("evaluate", run, features, challenger)
        yield dg.AssetCheckResult(
            passed=evaluated["verdict"]["decision"] == "promote",
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"reasons": reasons_of(evaluated)},
        )
        champion = evaluated["champion_metrics"].items()
        metadata = {f"champion {name}": value for name, value in champion}
        yield output(evaluated, metadata | {"decision": evaluated["verdict"]["decision"]})

    return evaluation


def promotion_asset(prefix: Sequence[str]) -> dg.AssetsDefinition:
    """Return the asset that carries out the decision about the challenger of a window."""

    @stage_asset(
        key=[*prefix, "promotion"],
        ins={"run": RUN, "evaluation": dg.AssetIn([*prefix, "evaluation"])},
        kinds={"mlflow"},
        output_required=False,
        group_name=prefix[-1],
    )
    def promotion(
        context: dg.AssetExecutionContext, run: Reference, evaluation: Reference
    ) -> Iterator[Any]:
        """The decision carried out; skipped where a wider window is tried first."""
        if evaluation["verdict"]["decision"] == "retrain":
            context.log.info("a gate failed, and more data is there: the wider window follows")
            return
        promoted = call("promote", run, evaluation)
        version = promoted["champion_version"] or 0
        if promoted["promoted"]:
            context.log_event(dg.AssetMaterialization(CHAMPION.key, metadata={"version": version}))
        yield output(promoted, {"promoted": promoted["promoted"], "champion version": version})

    return promotion


def window(
    prefix: Sequence[str], size: Window, after: Sequence[str] | None = None
) -> list[dg.AssetsDefinition]:
    """Return the assets that take one window of partitions from raw data to a decision."""
    return [
        *data_assets("training", prefix, size, after),
        *(candidate_asset(prefix, name) for name in CANDIDATES),
        challenger_asset(prefix),
        evaluation_asset(prefix),
        promotion_asset(prefix),
        *own_assets("promote", prefix, "promotion"),
    ]


WINDOW, WIDER_WINDOW = ["training", "window"], ["training", "wider_window"]

assets = [
    run_asset("training"),
    *window(WINDOW, size="normal"),
    *window(WIDER_WINDOW, size="wider", after=[*WINDOW, "evaluation"]),
]
