"""What doctor asks of Kubeflow: the pipelines compile, the image is named, a cluster answers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

from ...core.checks import Check
from ...core.paths import project_root
from ...core.settings import load_environment
from .local import PIPELINES

_LIMIT_SECONDS = 14.0
# In a process of its own: the SDK reads the definitions once a process, and takes its time.
_PROGRAM = """
import sys
from {package}.local import definition
from kfp.dsl import graph_component
made = getattr(definition(sys.argv[1]), sys.argv[1], None)
if not isinstance(made, graph_component.GraphComponent):
    raise SystemExit(f"defines no pipeline '{{sys.argv[1]}}'")
"""


def checks() -> list[Check]:
    """Return the checks of Kubeflow."""
    load_environment()
    return [*_pipelines(), _path(), _cluster()]


def _pipelines() -> Iterator[Check]:
    program = _PROGRAM.format(package=__package__)
    running = {
        pipeline: subprocess.Popen(
            [sys.executable, "-c", program, pipeline], stderr=subprocess.PIPE, text=True
        )
        for pipeline in PIPELINES
    }
    for pipeline, process in running.items():
        name, fix = f"pipeline {pipeline}", f"correct pipelines/{pipeline}.py or what it imports"
        try:
            _, log = process.communicate(timeout=_LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            yield Check(name, False, f"not defined after {_LIMIT_SECONDS:g} s", fix)
            continue
        if process.returncode == 0:
            yield Check(name, True, "compiles")
        else:
            yield Check(name, False, log.strip().splitlines()[-1], fix)


def _path() -> Check:
    root = project_root()
    if "python3" in str(root):
        fix = "move the project: the SDK's local runner replaces that text in all paths"
        return Check("local runs", False, f"'python3' is part of {root}", fix)
    return Check("local runs", True, "a process a step")


def _cluster() -> Check:
    import httpx

    name = "Kubeflow cluster"
    endpoint = os.environ.get("KFP_ENDPOINT", "").rstrip("/")
    if not endpoint:
        return Check(name, True, "none", "set KFP_ENDPOINT for `uv run poe up` to upload to one")
    token = os.environ.get("KFP_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = httpx.get(f"{endpoint}/apis/v2beta1/healthz", headers=headers, timeout=5)
        answer.raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        detail = f"{endpoint}: {type(error).__name__}: {error}".splitlines()[0]
        fix = "start it or reach it (kubectl port-forward), or correct KFP_ENDPOINT and KFP_TOKEN"
        return Check(name, False, detail, fix)
    return Check(name, True, f"answers at {endpoint}")
