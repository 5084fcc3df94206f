"""Projects with a year of work, and updating them with their own command."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from copier import run_copy

from ..support.template import commit_all, git
from . import team

# Each engine with another way of tracking.
ANSWERS: dict[str, dict[str, Any]] = {
    "airflow": {},
    "dagster": {"tracking": "mlflow_server", "workers": "distributed"},
    "prefect": {"tracking": "mlflow_remote"},
    "kubeflow": {"tracking": "mlflow_server"},
}
OLD, NEW = "v1.0.0", "v1.1.0"
# The project's own `update`, without an environment of its own.
UPDATE = "import sys; from flight_delays.cli.update import update; update(sys.argv[1:])"


@dataclass
class Updated:
    """A project with a year of work, and what the update of it printed.

    Attributes:
        before: The files that no update may touch.
    """

    path: Path
    engine: str
    before: dict[str, bytes]
    done: subprocess.CompletedProcess[str]


def make_old_project(template: Path, path: Path, engine: str) -> Path:
    """Make a project from the old version of a template, and do the team's work in it."""
    run_copy(
        str(template),
        path,
        vcs_ref=OLD,
        data={"orchestrator": engine, **ANSWERS[engine]},
        defaults=True,
        quiet=True,
    )
    git(path, "init", "--quiet", "--initial-branch=main")
    commit_all(path, "Generate")
    team.work(path, engine)
    return path


def update(project: Path, *options: str, lock: str = "exit 0") -> subprocess.CompletedProcess[str]:
    """Run the project's `update`; `uv` is a script, since there is no environment to lock for."""
    programs = project.parent / "programs"
    programs.mkdir(exist_ok=True)
    (programs / "uv").write_text(f'#!/bin/sh\necho "$@" >"{programs}/called"\n{lock}\n')
    (programs / "uv").chmod(0o755)
    variables = {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(project / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run(
        [sys.executable, "-c", UPDATE, *options],
        cwd=project,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def release(repository: Path, tag: str) -> None:
    """Release what is in the folder of a template."""
    commit_all(repository, tag)
    git(repository, "tag", tag)


def owned(project: Path) -> dict[str, bytes]:
    """Return the files that are the team's."""
    folders = [project / name for name in ("config", "data", str(team.PACKAGE / "domain"))]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(project)): path.read_bytes() for path in files}
