"""Stand-ins for the images that a project's compose files and Dockerfile name.

No registry is needed: images/Dockerfile makes them of Debian 13's packages, and they get the
official names, so that the project's files stay as users get them. What is real is the program;
what is not is its packaging and, for Prometheus and its kin, its exact version. Grafana is only a
checker of what it would be given.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from .docker import PROGRAMS
from .template import ROOT

# What an image holds here. A tag must ask for this version, where there is one.
RECIPES = {
    "python": "3.13",
    "postgres": "17",
    "redis": "8",
    "rclone/rclone": "",
    "prom/prometheus": "",
    "prom/pushgateway": "",
    "prom/alertmanager": "",
    "prom/blackbox-exporter": "",
    "grafana/grafana": "",
}
HOST_FILES = ("etc/ssl/certs/ca-certificates.crt", "etc/pip.conf", "etc/uv/uv.toml")
# Neither pages to read nor a safe disk.
DPKG = ("path-exclude=/usr/share/doc/*", "path-exclude=/usr/share/locale/*",
        "path-exclude=/usr/share/man/*", "force-unsafe-io")  # fmt: skip


def build_stand_ins(folder: Path, environment: dict[str, str], images: Iterable[str]) -> None:
    """Build the images that there is a recipe for, under the names that they are asked by.

    Args:
        folder: Where their files are put; what is there from an earlier call is used again.
        environment: What `docker_engine` yielded.
        images: Names with tags.

    Raises:
        AssertionError: There is no recipe for an image, or it cannot be built.
    """
    targets = {target: {"target": target, "tags": [name]} for name, target in recipes(images)}
    if not folder.exists():
        gather(folder)
    print(f"stand-ins: {', '.join(images)}", flush=True)
    bake = {"group": {"default": {"targets": list(targets)}}, "target": targets}
    (folder / "bake.json").write_text(json.dumps(bake))
    done = subprocess.run(
        ["docker", "buildx", "bake", "--progress=plain", "--file=bake.json"],
        cwd=folder,
        env={**os.environ, **environment},
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:]


def gather(folder: Path) -> None:
    """Put together what images/Dockerfile is built from."""
    print("stand-ins: a small Debian 13", flush=True)
    shutil.copytree(ROOT / "tests" / "support" / "images", folder)
    shutil.copy2(Path(sys.executable).parent / "rclone", folder)
    for file in HOST_FILES:
        if Path("/", file).exists():
            (folder / "host" / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(Path("/", file), folder / "host" / file)
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", "--include=ca-certificates",
         '--aptopt=Acquire::Languages "none"', *(f"--dpkgopt={line}" for line in DPKG),
         "trixie", folder / "base.tar", PROGRAMS / "trixie.list"],
        check=True,
    )  # fmt: skip


def recipes(images: Iterable[str]) -> list[tuple[str, str]]:
    """Return each image with the name of its recipe in images/Dockerfile."""
    found = []
    for image in images:
        name, _, tag = image.partition(":")
        assert name in RECIPES, f"{image}: no recipe; write one in images/Dockerfile"
        version = RECIPES[name]
        assert re.match(rf"{re.escape(version)}([.-]|$)", tag) or not version, (
            f"{image}: the recipe in images/Dockerfile makes {version}"
        )
        found.append((image, name.rpartition("/")[2]))
    return found


def images_of(project: Path, environment: dict[str, str]) -> list[str]:
    """Return the images that a project needs from outside: its services' and its Dockerfile's."""
    done = subprocess.run(
        ["docker", "compose", "config", "--format=json"],
        cwd=project,
        env={**os.environ, **environment},
        check=True,
        stdout=subprocess.PIPE,
    )
    services = json.loads(done.stdout)["services"].values()
    named = {service["image"] for service in services if "build" not in service}
    text = (project / "deploy" / "Dockerfile").read_text()
    defaults = dict(re.findall(r"^ARG (\w+)=(\S+)", text, re.MULTILINE))
    stages = re.findall(r"^FROM \S+ AS (\w+)", text, re.MULTILINE)
    for base in re.findall(r"^FROM (\S+)|COPY --from=(\S+)", text, re.MULTILINE):
        image = re.sub(r"\$\{(\w+)\}", lambda match: defaults[match[1]], "".join(base))
        if image not in stages:
            named.add(image)
    return sorted(named)
