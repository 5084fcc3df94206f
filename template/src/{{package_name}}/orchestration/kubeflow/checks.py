"""What doctor asks of Kubeflow: the pipelines compile, the project's path, a cluster answers.

The SDK takes over logging and reads the definitions once per process, so they are loaded in a
separate process: `python -m` this module prints the checks as JSON.
"""

from __future__ import annotations

import os
from functools import partial

from ...core.checks import Check, Probe, checks_of_process, print_checks
from ...core.paths import project_root
from ...core.settings import load_environment
from .local import PIPELINES, definition


def checks() -> list[Check]:
    """Return the checks of Kubeflow.

    Raises:
        RuntimeError: The SDK cannot be imported; holds its last lines.
        subprocess.TimeoutExpired: The definitions took too long.
    """
    load_environment()
    move = "move the project: the SDK's local runner replaces that text in all paths"
    reach = "start it or reach it (kubectl port-forward), or correct KFP_ENDPOINT and KFP_TOKEN"
    return [
        *checks_of_process(__name__),
        *Probe("local runs", move, _path).checks(),
        *Probe("Kubeflow cluster", reach, _cluster).checks(),
    ]


def _pipeline(name: str) -> str:
    from kfp.dsl import graph_component

    made = getattr(definition(name), name, None)
    if not isinstance(made, graph_component.GraphComponent):
        raise TypeError(f"defines no pipeline '{name}'")
    return "compiles"


def _path() -> str:
    root = project_root()
    if "python3" in str(root):
        raise RuntimeError(f"'python3' is part of {root}")
    return "one process per step"


def _cluster() -> str | list[Check]:
    import httpx

    endpoint = os.environ.get("KFP_ENDPOINT", "").rstrip("/")
    if not endpoint:
        upload = "set KFP_ENDPOINT for `uv run poe up` to upload to one"
        return [Check("Kubeflow cluster", True, "none", upload)]
    token = os.environ.get("KFP_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = httpx.get(f"{endpoint}/apis/v2beta1/healthz", headers=headers, timeout=5)
    answer.raise_for_status().json()
    return f"answers at {endpoint}"


if __name__ == "__main__":
    load_environment()
    print_checks(
        check
        for name in PIPELINES
        for check in Probe(
            f"pipeline {name}",
            f"correct pipelines/{name}.py or what it imports",
            partial(_pipeline, name),
        ).checks()
    )
