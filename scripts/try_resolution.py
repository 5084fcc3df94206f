"""Try what a generated project's dependency ranges allow: the newest of everything, or the lowest.

    uv run scripts/try_resolution.py newest default prefect
    uv run scripts/try_resolution.py lowest dagster

For each scaffold: which versions moved since the last release of the template and, of the newest,
what is newer but out of reach; then the scaffold's tests of tests/render/test_scaffolds.py.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.locks import RESOLUTIONS, lock, moved  # noqa: E402
from tests.support.projects import lift_certifi  # noqa: E402
from tests.support.template import copy_sources, git, make_project  # noqa: E402

RUNS = ("test_its_own_tests_pass", "test_its_pipelines_run_on_its_engine")
# What linters and type checkers of long ago say is nobody's concern.
TESTS = {
    "newest": ("test_code_is_clean_at_birth", *RUNS, "test_no_licence_binds_the_user"),
    "lowest": RUNS,
}


def main() -> int:
    """Try every scaffold that is named; returns 1 if one of them failed."""
    parser = argparse.ArgumentParser(description="Try what the dependency ranges allow.")
    parser.add_argument("end", choices=RESOLUTIONS, help="of the ranges")
    parser.add_argument("scaffolds", nargs="+", metavar="scaffold", help="like default, prefect")
    args = parser.parse_args()
    failed = []
    for name in args.scaffolds:
        print(f"\n## {name}, {args.end}\n", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            show(generate(name, Path(folder)), args.end)
        if run_tests(name, args.end) != 0:
            failed.append(name)
    print(f"\nfailed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


def generate(scaffold: str, folder: Path) -> Path:
    """Render a scaffold of the working tree below a folder; returns the project's."""
    answers = yaml.safe_load((ROOT / "scaffolds" / f"{scaffold}.yml").read_text())
    # Without git: of a repository Copier would take the last release.
    make_project(copy_sources(folder / "template"), folder / "project", answers)
    lift_certifi(folder / "project" / "pyproject.toml")
    return folder / "project"


def show(project: Path, end: str) -> None:
    """Print what moved since the last release and, of the newest, what is out of reach."""
    if tags := git(ROOT, "tag", "--list", "v*", "--sort=-creatordate").split():
        released = git(ROOT, "log", "-1", "--format=%cI", tags[0]).strip()
        before = lock(project, "newest", "--exclude-newer", released)
        print(*moved(before, lock(project, end), tags[0]), sep="\n", flush=True)
    else:
        print("no release to compare with", flush=True)
        lock(project, end)
    if end == "newest":
        command = ["uv", "tree", "--frozen", "--depth=1", "--outdated"]
        tree = subprocess.run(command, cwd=project, check=True, stdout=subprocess.PIPE, text=True)
        newer = [line for line in tree.stdout.splitlines() if "(latest:" in line]
        print("\nnewer, but out of reach:", *(newer or ["nothing"]), sep="\n", flush=True)


def run_tests(scaffold: str, end: str) -> int:
    """Generate, install, test and run a scaffold; returns pytest's exit code."""
    tests = [f"tests/render/test_scaffolds.py::{test}[{scaffold}]" for test in TESTS[end]]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *tests],
        cwd=ROOT,
        env=os.environ | {"UV_RESOLUTION": RESOLUTIONS[end]},
        check=False,
    )
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
