"""Inference: the champion predicts a day, and the day is watched for drift."""

from typing import Any

from kfp import dsl

from . import training
from .components import SLUG, Steps

DESCRIPTION = (
    "Scores a partition with the champion, then compares the newest days with what the champion "
    "learned from and, where labels have arrived, with what really happened. Too much drift, or a "
    "live metric beyond its gate, alerts the team and trains for the same partition. partition: "
    "the day, like 2013-02-01; empty is the newest at the source; yesterday is the day before."
)


def define(step: Steps) -> Any:
    """Return the pipeline, made of components for a cluster or for this machine."""
    train = training.define(step)

    @dsl.pipeline(name=f"{SLUG}-inference", description=DESCRIPTION)  # type: ignore[untyped-decorator]
    def inference(partition: str = "") -> None:
        which = {"pipeline": "inference", "run_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER}
        finish = step("finish", partition=partition, **which)
        with dsl.ExitHandler(finish, name="inference"):
            day = step("wait_for_partition", partition=partition, **which).output
            run = step("start", partition=day, **which).outputs["reference"]
            raw = step("ingest", run=run, window="normal").outputs["reference"]
            valid = step("validate", run=run, raw=raw).outputs["reference"]
            features = step("featurize", run=run, dataset=valid).outputs["reference"]
            scores = step("score", run=run, features=features).outputs["reference"]
            monitoring = step("monitor", run=run, features=features, scores=scores)
            with dsl.If(monitoring.outputs["Output"] == "retrain", name="a new model is needed"):
                train(partition=day).set_display_name("Training")

    return inference


inference = define(Steps(local=False))
