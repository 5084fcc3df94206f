"""Inference: the champion predicts a partition, which is watched for drift."""

from typing import Any

from kfp import dsl

from . import training
from .components import SLUG, Steps

DESCRIPTION = (
    "Scores a partition with the champion, then compares the newest rows with what the champion "
    "learned from and, where labels have arrived, with what really happened. Too much drift, or a "
    "live metric beyond its gate, alerts the team and trains for the same partition. partition: "
    "its name, like 2026-02-01; empty is the newest at the source; previous ended last."
)


def define(step: Steps) -> Any:
    """Return the pipeline, made of components for a cluster or for this machine."""
    train = training.define(step)

    @dsl.pipeline(name=f"{SLUG}-inference", description=DESCRIPTION)  # type: ignore[untyped-decorator]
    def inference(partition: str = "") -> None:
        which = {"pipeline": "inference", "run_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER}
        finish = step("finish", partition=partition, **which)
        with dsl.ExitHandler(finish, name="inference"):
            found = step("wait_for_partition", partition=partition, **which).output
            run = step("start", partition=found, **which).outputs["reference"]
            raw = step("ingest", run=run, window="normal").outputs["reference"]
            valid = step("validate", run=run, raw=raw)
            checked = step.after("validate", run, valid)
            prepared = step("featurize", run=run, dataset=valid.outputs["reference"]).after(checked)
            features = prepared.outputs["reference"]
            scored = step("score", run=run, features=features)
            kept = step.after("score", run, scored)
            scores = scored.outputs["reference"]
            monitoring = step("monitor", run=run, features=features, scores=scores).after(kept)
            with dsl.If(monitoring.outputs["Output"] == "retrain", name="a new model is needed"):
                train(partition=found).set_display_name("Training")

    return inference


inference = define(Steps(local=False))
