"""Training: from a day's data to a new champion, if it is better than the present one."""

from typing import Any

from kfp import dsl

from .components import SLUG, Steps

DESCRIPTION = (
    "Takes the window of days up to a partition from raw data to a challenger, and promotes it "
    "only if the gates of config/pipeline.toml hold. A gate that fails leads to one more training "
    "with a wider window, and then to the old champion. partition: the day, like 2013-01-28; empty "
    "is the newest at the source; yesterday is the day before."
)


def define(step: Steps) -> Any:
    """Return the pipeline, made of components for a cluster or for this machine."""

    def train_and_evaluate(run: Any, window: str) -> dsl.PipelineTask:
        raw = step("ingest", run=run, window=window).outputs["reference"]
        valid = step("validate", run=run, raw=raw).outputs["reference"]
        prepared = step("featurize", run=run, dataset=valid)
        features = prepared.outputs["reference"]
        # kfp.local hands the item, and nothing else, to what is inside the loop.
        with dsl.ParallelFor(prepared.outputs["Output"], name="candidates") as training:
            trained = step("train", training=training)
        candidates = dsl.Collected(trained.outputs["reference"])
        challenger = step("select", run=run, candidates=candidates).outputs["reference"]
        return step("evaluate", run=run, features=features, candidate=challenger)

    def carry_out(run: Any, evaluation: dsl.PipelineTask) -> None:
        decision, result = evaluation.outputs["Output"], evaluation.outputs["reference"]
        with dsl.If(decision == "promote", name="gates hold"):
            step("promote", run=run, evaluation=result)
        with dsl.Else(name="a gate fails"):
            step("promote", "Keep the champion", run=run, evaluation=result)

    @dsl.pipeline(name=f"{SLUG}-training", description=DESCRIPTION)  # type: ignore[untyped-decorator]
    def training(partition: str = "") -> None:
        which = {"pipeline": "training", "run_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER}
        finish = step("finish", partition=partition, **which)
        with dsl.ExitHandler(finish, name="training"):
            day = step("wait_for_partition", partition=partition, **which).output
            run = step("start", partition=day, **which).outputs["reference"]
            first = train_and_evaluate(run, "normal")
            with dsl.If(first.outputs["Output"] == "retrain", name="more data is there"):
                carry_out(run, train_and_evaluate(run, "wider"))
            with dsl.Else(name="no more data is needed"):
                carry_out(run, first)

    return training


training = define(Steps(local=False))
