"""What uv resolves a project's dependency ranges to, at either end."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import yaml

from .projects import find_python

# The values of uv's --resolution, and of UV_RESOLUTION.
RESOLUTIONS = {"newest": "highest", "lowest": "lowest-direct"}


def lock(project: Path, end: str, *options: str) -> dict[str, list[str]]:
    """Resolve a project anew, and return the versions of every package.

    Args:
        project: Its folder.
        end: Of the ranges: "newest" or "lowest".
        options: More options of `uv lock`.
    """
    answers = yaml.safe_load((project / ".copier-answers.yml").read_text())
    python = find_python(answers["python_version"])
    command = ["uv", "lock", "--quiet", "--upgrade", "--python", python]
    subprocess.run([*command, "--resolution", RESOLUTIONS[end], *options], cwd=project, check=True)
    versions: dict[str, list[str]] = {}
    for package in tomllib.loads((project / "uv.lock").read_text())["package"]:
        # Some have one for each Python.
        versions.setdefault(package["name"], []).append(package["version"])
    return versions


def moved(before: dict[str, list[str]], after: dict[str, list[str]], since: str) -> list[str]:
    """Return a Markdown table of the packages whose versions differ."""
    rows = [
        f"| {name} | {', '.join(before.get(name, ['-']))} | {', '.join(after.get(name, ['-']))} |"
        for name in sorted(before | after)
        if before.get(name) != after.get(name)
    ]
    return [f"| package | at {since} | now |", "|---|---|---|", *rows]
