"""What the tests share: an isolated environment, the template as a release, and rendering it."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment
from xdist.remote import Producer  # type: ignore[import-untyped]
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from .support.template import Render, copy_sources, git, make_project

# With several processes these begin first, so that none of them is what all wait for at the end.
LONGEST = ["test_stack", "test_in_project", "test_switching", "test_scaffolds", "test_rendering"]
TOO_LATE = "the time of CI was over"
# Each parameter of these has a project of its own.
BY_PROJECT = ("test_scaffolds", "test_in_project")


class Scheduler(LoadScopeScheduling):  # type: ignore[misc]
    """Gives each process whole files, and each scaffold to one: their tests share a project.

    There may be one Docker engine only.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        name = Path(file).stem
        if name in ("test_docker", "test_stack"):
            return "docker"
        return nodeid.rpartition("[")[2] if name in BY_PROJECT else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduler:
    """Spread the tests over processes."""
    return Scheduler(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""
    names = [*LONGEST, ""]
    items.sort(key=lambda item: names.index(item.path.stem if item.path.stem in names else ""))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Begin no test when the time of CI is nearly over: a slow machine would not end it."""
    if time.time() > float(os.environ.get("LAST_TEST_BEGINS", "inf")):
        pytest.skip(TOO_LATE)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests for which no time was left."""
    skipped = terminalreporter.stats.get("skipped", [])
    late = [report.nodeid for report in skipped if TOO_LATE in str(report.longrepr)]
    if late:
        terminalreporter.section(f"{len(late)} NOT RUN: {TOO_LATE}", sep="=")
        terminalreporter.line("\n".join(late))


@pytest.fixture(scope="session", autouse=True)
def isolated_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the settings of whoever runs the tests out of them, but share uv's cache."""
    home = tmp_path_factory.mktemp("home")
    cache = subprocess.run(["uv", "cache", "dir"], check=True, capture_output=True, text=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UV_CACHE_DIR", cache.stdout.strip())
        patch.setenv("HOME", str(home))
        # Several processes share the cores: threads of theirs would only wait for each other.
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        for role in ("AUTHOR", "COMMITTER"):
            patch.setenv(f"GIT_{role}_NAME", "Tester")
            patch.setenv(f"GIT_{role}_EMAIL", "tester@example.org")
        for name in ("COPIER_SETTINGS_PATH", "VIRTUAL_ENV", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
            patch.delenv(name, raising=False)
        for name in [name for name in os.environ if name.startswith("PIPELINE_")]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session", autouse=True)
def compiled_once() -> Iterator[None]:
    """Compile each text of the template once: that is half of the time that a rendering takes."""
    compile_anew, compiled = Environment.compile, {}

    def compile_once(environment: Environment, source: Any, *names: Any, **options: Any) -> Any:
        settings = type(environment), environment.keep_trailing_newline
        key = settings, source, names, *options.items()
        if key not in compiled:
            compiled[key] = compile_anew(environment, source, *names, **options)
        return compiled[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Environment, "compile", compile_once)
        yield


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the working tree, uncommitted work too, as a plain folder."""
    return copy_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="session")
def template(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the working tree as users get it: a git repository with one release."""
    repository = tmp_path_factory.mktemp("template")
    shutil.copytree(sources, repository, dirs_exist_ok=True)
    git(repository, "init", "--quiet", "--initial-branch=main")
    git(repository, "add", "--all", "--force")
    git(repository, "commit", "--quiet", "--message=Release")
    git(repository, "tag", "v0.1.0")
    return repository


@pytest.fixture(scope="session")
def render(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Render:
    """Return `render(with_data=False, **answers)`, which makes a project and returns its folder.

    Questions without an answer take their default. The same answers give the same folder: do not
    change what is in it. To save time the sample data is left out and no version is recorded.
    """
    made: dict[str, Path] = {}

    def render(with_data: bool = False, **answers: Any) -> Path:
        key = repr((with_data, sorted(answers.items())))
        if key not in made:
            made[key] = tmp_path_factory.mktemp("project")
            make_project(sources, made[key], answers, with_data)
        return made[key]

    return render
