"""The engine of the stack suite leaves nothing behind, and refuses what it cannot stand in for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ..support import docker
from ..support.stand_ins import recipes
from ..support.template import ROOT

# A run with a network and a container on a published port, which is killed in the middle.
KILLED = """
import os, signal, subprocess, sys
from pathlib import Path
from tests.support.docker import docker_engine
program = Path(sys.executable).parent / "rclone"
with docker_engine(Path(sys.argv[1])) as variables:
    def docker(*arguments, **keywords):
        subprocess.run(["docker", *arguments], check=True, env=os.environ | variables, **keywords)
    tar = subprocess.run(["tar", "-cC", program.parent, "rclone"], check=True, capture_output=True)
    docker("import", "-", "left", input=tar.stdout)
    docker("network", "create", "left")
    docker("run", "--detach", "--restart=always", "--network=left", "--publish=127.0.0.1::80",
           "left", "/rclone", "rcd", "--rc-addr=:80", "--rc-no-auth")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_an_engine_clears_away_what_a_killed_run_left(tmp_path: Path) -> None:
    before = docker.machine(tmp_path)
    command = [sys.executable, "-c", KILLED, f"{tmp_path / 'killed'}"]
    path = {"PYTHONPATH": f"{ROOT}:{ROOT / 'template' / 'tests'}"}
    done = subprocess.run(command, check=False, env={**os.environ, **path})
    assert done.returncode == -signal.SIGKILL
    left = docker.remains()
    for kind in ("process", "mount", "interface docker0", "interface br-", "rule", "group"):
        assert any(line.startswith(kind) for line in left), (kind, left)

    with docker.docker_engine(tmp_path / "next") as variables:
        listed = subprocess.run(
            ["docker", "ps", "--all", "--quiet"],
            env={**os.environ, **variables},
            check=True,
            capture_output=True,
        )
        assert listed.stdout == b""

    assert docker.remains() == []
    assert list(tmp_path.iterdir()) == []
    assert docker.machine(tmp_path) == before


@pytest.mark.slow
def test_a_second_engine_at_the_same_time_is_refused(tmp_path: Path) -> None:
    with (
        docker.alone(),
        pytest.raises(AssertionError, match="runs already"),
        docker.docker_engine(tmp_path),
    ):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("mysql:9", "mysql:9: no recipe"),
        ("postgres:18", "makes 17"),
        ("postgres:170", "makes 17"),
        ("python:3.12-slim", "makes 3.13"),
    ],
)
def test_an_image_without_a_recipe_is_refused(image: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        recipes([image])


def test_the_recipes_are_those_of_the_dockerfile() -> None:
    text = (ROOT / "tests" / "support" / "images" / "Dockerfile").read_text()
    for name, recipe in recipes(["python:3.13-slim", "postgres:17", "prom/prometheus:v3.5.0"]):
        assert f" AS {recipe}\n" in text, name
