"""Kubeflow Pipelines on this machine: run a pipeline without a cluster, or compile for one.

Used by `uv run poe run`, `uv run poe compile` and `uv run poe up`.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import secrets
import sys
import warnings
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

from ...core import optional
from ...core.ending import last_words, raise_signals
from ...core.errors import Terminated
from .. import servers
from ..local_run import attended, conclude
from ..servers import out
from . import step

PIPELINES = ("training", "inference")


def definition(pipeline: str) -> ModuleType:
    """Return the module in `pipelines/` that defines a pipeline.

    Raises:
        SystemExit: There is none.
    """
    if pipeline not in PIPELINES:
        raise SystemExit(f"no pipeline '{pipeline}'; there are: {', '.join(PIPELINES)}")
    return optional.load_beside(f"pipelines.{pipeline}")


def run(pipeline: str = "training", partition: str | None = None, *, verbose: bool = False) -> None:
    """Run a whole pipeline on this machine with the SDK's local runner, one process per step.

    Raises:
        SystemExit: The run failed.
    """
    root = servers.base_environment()
    servers.refuse_unshared_state()
    if "python3" in str(root):
        raise SystemExit(f"move the project: kfp.local replaces 'python3' in paths like {root}")
    run_id = f"local-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
    os.environ[step.LOCAL_RUN_ID] = run_id
    failed = None
    with attended(pipeline, "Kubeflow's local runner", verbose=verbose) as log:
        try:
            with raise_signals():
                _run(root, pipeline, partition)
        except RuntimeError as error:
            failed = f"the {pipeline} pipeline failed: {error}"
        except Terminated as error:
            status = json.dumps({"state": step.INTERRUPTED} if error.is_interactive else {})
            given = {"pipeline": pipeline, "run_id": run_id, "partition": partition or ""}
            with last_words(error), contextlib.suppress(Exception, SystemExit):
                step.finish("finish", given | {"status": status})
            out.print(f"error: {error}", markup=False)
            raise SystemExit(error.exit_code) from None
    conclude(pipeline, run_id, failed, log)


def _run(root: Path, pipeline: str, partition: str | None) -> None:
    from kfp import local
    from kfp.local import subprocess_task_handler

    module = definition(pipeline)
    # It warns of what only a cluster heeds: titles, time limits.
    warnings.filterwarnings("ignore", module=r"kfp\.local")
    # It would start Python anew for each step, and most of them import for longer than they work.
    subprocess_task_handler.run_local_subprocess = _fork
    local.init(local.SubprocessRunner(use_venv=False), str(root / "var" / "kubeflow" / "runs"))
    module.define(module.Steps(local=True))(partition=partition or "")


def _fork(full_command: list[str], env_vars: dict[str, str] | None = None) -> int:
    """Run a step's command in a new process that has imported the heavy libraries already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"{__package__}.preload"])
    # Before the arguments come Python, -m and the module.
    process = context.Process(target=step.main, args=(full_command[3:],))
    process.start()
    try:
        process.join()
    except Terminated:
        process.terminate()
        process.join()
        raise
    return process.exitcode or 0


def compile_pipelines() -> dict[str, Path]:
    """Write the pipelines for a cluster to var/kubeflow/, and return the files by pipeline."""
    folder = servers.base_environment() / "var" / "kubeflow"
    folder.mkdir(parents=True, exist_ok=True)
    from kfp import compiler

    files = {pipeline: folder / f"{pipeline}.yaml" for pipeline in PIPELINES}
    for pipeline, file in files.items():
        compiler.Compiler().compile(getattr(definition(pipeline), pipeline), str(file))
        out.print(f"{pipeline}: {file}", soft_wrap=True)
    return files


def up() -> None:
    """Start MLflow, compile the pipelines, and upload them where $KFP_ENDPOINT names a cluster.

    Kubeflow itself runs on Kubernetes only; without a cluster use `uv run poe run`.
    """
    servers.base_environment()
    servers.refuse_unshared_state()
    files = compile_pipelines()
    if os.environ.get("KFP_ENDPOINT"):
        from .cluster import publish

        published = publish(files)
    else:
        published = [("Kubeflow", "not started: set KFP_ENDPOINT to upload, or use poe run")]
    servers.serve([], lambda: published)


if __name__ == "__main__":
    run(*sys.argv[1:])
