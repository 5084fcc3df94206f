"""The project's image: how large it is, and how long it takes to build."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.docker import docker_engine
from tests.support.stand_ins import build_stand_ins

from .measure import CommandError
from .results import MEGABYTE, Row

if TYPE_CHECKING:
    from .bench import Bench

BASE = "python:3.13-slim"


def image(bench: Bench) -> None:
    """Build the image with nothing cached, and again after a change of the project's code.

    In a Docker engine of its own, like the stack suite's, on a stand-in for the base image; the
    packages come from the index.
    """
    if os.getuid() != 0:
        raise CommandError("not measured: only root can start a Docker engine")
    workspace = bench.workspace
    # Makes uv.lock.
    assert workspace.python.exists()
    folder = Path(tempfile.mkdtemp(prefix="benchmarks-image-"))
    try:
        with docker_engine(folder / "engine") as variables:
            build_stand_ins(folder / "images", variables, [BASE])
            environment = {**workspace.environment, **variables}

            def build() -> float:
                started = time.perf_counter()
                options = ["--quiet", "--file=deploy/Dockerfile", "--tag=it"]
                done = subprocess.run(
                    ["docker", "build", *options, "."],
                    cwd=workspace.project,
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if done.returncode != 0:
                    raise CommandError(done.stderr[-2000:])
                return time.perf_counter() - started

            cold = build()
            code = next((workspace.project / "src").glob("*/results.py"))
            code.write_text(code.read_text() + "\n")
            warm = build()
            command = ["docker", "image", "inspect", "it", BASE]
            asked = subprocess.run(command, env=environment, check=True, capture_output=True)
            size, base = (found["Size"] for found in json.loads(asked.stdout))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    note = (
        f"{size / MEGABYTE:,.0f} MB, {base / MEGABYTE:,.0f} of them Python; built in {cold:.0f} s "
        f"with nothing cached, in {warm:.0f} s after a change of code"
    )
    bench.results.rows.append(Row("image", note=note))
    bench.say(f"image: {note}")
