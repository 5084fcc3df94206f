"""A step of a pipeline, and how it becomes a Kubeflow component."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kfp import dsl

ENTRY = ("python3", "-m", f"{__package__}.step")
# kfp.local refuses a command that does not name the SDK's own executor; the step ignores it.
LOCAL_MARK = ("--executor", "kfp.dsl.executor_main")


@dataclass(frozen=True)
class Step:
    """One step of a pipeline; the stage of its name does the work.

    Attributes:
        title: What the UI calls it.
        inputs: Each value it takes, and its type.
        outputs: Each value it gives, and its type. What conditions and loops read is called
            `Output`: `kfp.local` finds it under no other name.
        pages: What the UI shows beside its log.
        waits: It may take as long as a partition takes to arrive.
    """

    name: str
    title: str
    description: str
    inputs: Mapping[str, type] = field(default_factory=dict)
    outputs: Mapping[str, type] = field(default_factory=dict)
    pages: Mapping[str, type] = field(default_factory=dict)
    waits: bool = False


def component(step: Step, image: str, *, local: bool) -> Any:
    """Return a step as a component: inputs on its command line, outputs in files named there.

    Args:
        step: The step.
        image: What a cluster runs its command in.
        local: For `kfp.local`, which runs the same command in this environment.
    """

    def container(*placeholders: Any) -> dsl.ContainerSpec:
        given = dict(zip(interface, placeholders, strict=True))
        command: list[Any] = [*ENTRY, step.name]
        for name in step.inputs:
            command += [f"--{name}", given[name]]
        for name in step.outputs:
            command += [f"--to-{name}", f"{{{{$.outputs.parameters['{name}'].output_file}}}}"]
        for name in step.pages:
            command += [f"--to-{name}", given[name].path]
        # The local runner runs no image.
        return dsl.ContainerSpec(
            image="python" if local else image, command=[*command, *(LOCAL_MARK if local else ())]
        )

    interface: dict[str, Any] = {
        **step.inputs,
        **{name.lower(): dsl.OutputPath(kind) for name, kind in step.outputs.items()},
        **{name: dsl.Output[kind] for name, kind in step.pages.items()},
    }
    container.__name__, container.__doc__ = step.name, step.description
    # What the SDK reads a component's interface from.
    vars(container)["__signature__"] = inspect.Signature(
        [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=kind)
            for name, kind in interface.items()
        ]
    )
    made = dsl.container_component(container)
    # A name that the SDK gives to what a Python function returns, but takes from no signature.
    outputs = made.component_spec.outputs
    if "Output" in step.outputs:
        outputs["Output"] = outputs.pop("output")
    return made
