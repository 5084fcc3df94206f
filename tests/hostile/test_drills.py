"""The fault drills: some of them, and one on a project that is broken, which they must notice."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ..support.projects import Project, make_installed_project
from ..support.template import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]
SEED = "20"


@pytest.fixture(scope="module")
def project(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("drilled") / "project"
    return make_installed_project(sources, folder, orchestrator="dagster")


def drill(project: Project, *options: str) -> subprocess.CompletedProcess[str]:
    """Run drills on the project, from its first run on."""
    shutil.rmtree(project.path / "var", ignore_errors=True)
    return subprocess.run(
        [
            *(sys.executable, "-m", "poethepoet", "-q", "drills"),
            *("--project", str(project.path), "--seed", SEED, *options),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_runs_that_are_broken_at_random_moments_leave_all_as_it_must_be(project: Project) -> None:
    kinds = ("terminate", "kill-promote", "mail")
    only = [word for kind in kinds for word in ("--only", kind)]
    done = drill(project, "--count", "3", *only)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"seed {SEED}" in done.stdout
    # A line each, and one of the table.
    assert [done.stdout.count(f" {kind} ") for kind in kinds] == [2, 2, 2]


def test_drills_notice_a_run_that_nobody_closes(project: Project) -> None:
    file = project.path / "src" / project.package / "core" / "tracking.py"
    sound = file.read_text()
    file.write_text(f"{sound}\n\ndef finish(run, status):\n    pass\n")
    try:
        done = drill(project, "--count", "1", "--only", "mail")
    finally:
        file.write_text(sound)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BROKEN: MLflow runs are left RUNNING: " in done.stdout
