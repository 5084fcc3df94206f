"""Dependencies of the generated project: each range has a reason, and holds at both of its ends."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from copier import run_copy

from ..support import licences
from ..support.locks import RESOLUTIONS, lock, moved
from ..support.projects import lift_certifi
from ..support.questions import QUESTIONS, choices
from ..support.scaffolds import IDS, SCAFFOLDS
from ..support.template import ROOT, Render

Versions = dict[str, list[str]]

ENGINES: list[str] = choices(QUESTIONS["orchestrator"])
# All that an engine can be asked for.
EVERYTHING = {"tracking": "mlflow_server", "workers": "distributed", "serving": "rest"}
ONLY_RANGES = ("*", "!pyproject.toml")
# uv.lock does not hold it.
BUILD = {"uv_build"}
REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[\w,]+\])?(.*)")


def ranges(pyproject: Path) -> dict[str, str]:
    """Return the range of every package that a project names."""
    found = tomllib.loads(pyproject.read_text())
    named = [
        *found["project"]["dependencies"],
        *found["build-system"]["requires"],
        *(package for group in found["dependency-groups"].values() for package in group),
    ]
    parts = [REQUIREMENT.fullmatch(requirement) for requirement in named]
    return {part[1]: part[2] for part in parts if part}


def documented() -> dict[str, list[str]]:
    """Return the rows of docs/dependencies.md that have a range."""
    return {name: cells for name, cells in licences.rows().items() if cells[0][:2] == "`>"}


def test_every_range_is_documented_with_its_reasons(sources: Path, tmp_path: Path) -> None:
    """All scaffolds together name every package; none else is in the document."""
    named: dict[str, str] = {}
    for path in SCAFFOLDS:
        answers: dict[str, Any] = yaml.safe_load(path.read_text())
        project = tmp_path / path.stem
        run_copy(
            str(sources), project, data=answers, exclude=ONLY_RANGES, defaults=True, quiet=True
        )
        named |= ranges(project / "pyproject.toml")

    assert {name: cells[0].strip("`") for name, cells in documented().items()} == named
    for name, cells in documented().items():
        assert len(cells) == 4, name
        assert all(cells), name
    # What is open at the top says what limits it; all others are limited at both ends.
    for name, (range_, _, _, below) in documented().items():
        assert ("<" in range_) != below.startswith("open"), name


@pytest.fixture(scope="module")
def locks(render: Render, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Versions]]:
    """Return what every engine's project with everything resolves to, at either end."""

    def resolve(engine: str) -> list[Versions]:
        source = render(orchestrator=engine, **EVERYTHING)
        project = tmp_path_factory.mktemp(engine)
        shutil.copytree(source, project, dirs_exist_ok=True)
        lift_certifi(project / "pyproject.toml")
        return [lock(project, "newest"), lock(project, "lowest")]

    with ThreadPoolExecutor(len(ENGINES)) as pool:
        found = list(pool.map(resolve, ENGINES))
    return {end: [pair[i] for pair in found] for i, end in enumerate(("newest", "lowest"))}


@pytest.mark.slow
def test_every_lower_bound_is_what_the_lowest_run_installs(
    locks: dict[str, list[Versions]],
) -> None:
    """With one engine at least: a bound that nothing reaches promises what nobody tested."""
    for name, (range_, *_) in documented().items():
        if name not in BUILD:
            bound = range_.strip("`>=").split(",")[0]
            found = {version for lowest in locks["lowest"] for version in lowest.get(name, [])}
            assert any(f"{version}.".startswith(f"{bound}.") for version in found), (name, found)


@pytest.mark.slow
def test_every_upper_bound_lets_the_newest_tried_version_in(
    locks: dict[str, list[Versions]],
) -> None:
    """What the document calls tested is what the newest run installs."""
    for name, (_, _, _, below) in documented().items():
        if tried := re.search(r"; ([\d.]+) is tested", below):
            found = {version for newest in locks["newest"] for version in newest.get(name, [])}
            assert any(f"{version}.".startswith(f"{tried[1]}.") for version in found), (name, found)


def test_what_moved_is_shown_as_a_table() -> None:
    before = {"polars": ["1.36.1"], "gone": ["1.0"], "same": ["2.0"]}
    after = {"polars": ["2.1.0"], "numpy": ["2.4.6", "2.5.5"], "same": ["2.0"]}

    assert moved(before, after, "v0.1.0") == [
        "| package | at v0.1.0 | now |",
        "|---|---|---|",
        "| gone | 1.0 | - |",
        "| numpy | - | 2.4.6, 2.5.5 |",
        "| polars | 1.36.1 | 2.1.0 |",
    ]


def test_the_weekly_workflow_tries_every_scaffold_at_both_ends() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "weekly.yml").read_text())
    matrix = workflow["jobs"]["versions"]["strategy"]["matrix"]

    assert sorted(matrix["scaffold"]) == sorted(IDS)
    assert set(matrix["end"]) == set(RESOLUTIONS)


def test_ci_has_a_job_for_each_scaffold_that_runs_its_tests() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    job = workflow["jobs"]["scaffold"]

    assert sorted(job["strategy"]["matrix"]["scaffold"]) == sorted(IDS)
    command = job["steps"][-1]["run"].splitlines()[0].split(" > ")[0].replace("uv run ", "")
    for scaffold in ("dagster", "dagster-rest"):
        listed = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=ROOT,
            env={**os.environ, "SCAFFOLD": scaffold},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        assert len(listed) >= 5
        assert all(test.endswith(f"[{scaffold}]") for test in listed)


CHANGELOG = """# Changelog

## Unreleased

### Fix

- Later.

## 1.2.0 (2027-01-02)

### Feature

- This.

## 1.1.0 (2027-01-01)

- That.
"""


def test_the_newest_version_of_the_changelog_is_the_next_release() -> None:
    newest = runpy.run_path(str(ROOT / "scripts" / "next_release.py"))["newest"]

    assert newest(CHANGELOG) == ("1.2.0", "### Feature\n\n- This.\n")
    assert newest("# Changelog\n\n## Unreleased\n\n- This.\n") is None
    newest((ROOT / "CHANGELOG.md").read_text())


def test_the_script_runs_tests_that_there_are() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "try_resolution.py"))

    assert set(script["TESTS"]) == set(RESOLUTIONS)
    text = (ROOT / "tests" / "render" / "test_scaffolds.py").read_text()
    for tests in script["TESTS"].values():
        assert all(f"def {test}(" in text for test in tests)


def test_a_licence_is_read_part_by_part() -> None:
    assert licences.families("Apache Software License; MIT License") == {"Apache", "MIT"}
    assert licences.families("MPL-2.0 AND (Apache-2.0 OR MIT)") == {"Apache", "MIT", "MPL"}
    assert licences.families("Mozilla Public License 2.0 (MPL 2.0)") == {"MPL"}
    assert licences.families("GNU Library or Lesser General Public License (LGPL)") == {
        "GNU Library or Lesser General Public License",
        "LGPL",
    }
    assert licences.families("MIT AND GPL-3.0-only") == {"MIT", "GPL-3.0-only"}
    assert licences.families("UNKNOWN") == {"UNKNOWN"}
