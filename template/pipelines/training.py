"""Training: from data to a new champion, if it is better than the present one."""

from typing import Any

from kfp import dsl

from .components import SLUG, Steps

DESCRIPTION = (
    "Takes the window up to a partition from raw data to a challenger, and promotes it only if the "
    "gates of config/pipeline.toml hold. A gate that fails leads to one more training with a wider "
    "window, and then to the old champion. partition: its name, like 2026-01-28; empty is the "
    "newest at the source; previous is the one that ended last."
)


def define(step: Steps) -> Any:
    """Return the pipeline, made of components for a cluster or for this machine."""

    def train_and_evaluate(run: Any, window: str) -> dsl.PipelineTask:
        raw = step("ingest", run=run, window=window).outputs["reference"]
        valid = step("validate", run=run, raw=raw)
        checked = step.after("validate", run, valid)
        prepared = step("featurize", run=run, dataset=valid.outputs["reference"]).after(checked)
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
            step.after("promote", run, step("promote", run=run, evaluation=result))
        with dsl.Else(name="a gate fails"):
            kept = step("promote", "Keep the champion", run=run, evaluation=result)
            step.after("promote", run, kept)

    @dsl.pipeline(name=f"{SLUG}-training", description=DESCRIPTION)  # type: ignore[untyped-decorator]
    def training(partition: str = "") -> None:
        which = {"pipeline": "training", "run_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER}
        finish = step("finish", partition=partition, **which)
        with dsl.ExitHandler(finish, name="training"):
            found = step("wait_for_partition", partition=partition, **which).output
            run = step("start", partition=found, **which).outputs["reference"]
            first = train_and_evaluate(run, "normal")
            with dsl.If(first.outputs["Output"] == "retrain", name="more data is there"):
                carry_out(run, train_and_evaluate(run, "wider"))
            with dsl.Else(name="no more data is needed"):
                carry_out(run, first)

    return training


training = define(Steps(local=False))
