"""What a team does to its project, and whether it is still there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from ..support.template import commit_all
from .changes import substitute

PACKAGE = Path("src/flight_delays")
DOMAIN = Path(__file__).parent / "domain"
# What the team writes into files of the template's, and files of its own.
STAGE = '''

def our_own_helper() -> str:
    """Return what the team added to a stage."""
    return "ours"
'''
README = "\n## Our runbook\n\nCall the night shift.\n"
MINE = {
    "dags/cleanup.py": '''"""Our own DAG."""

from airflow.sdk import dag, task

from flight_delays.orchestration.airflow.tasks import DEFAULT_ARGS


@task
def remove_old_reports() -> None:
    """Remove reports nobody reads any more."""


@dag(dag_id="cleanup", schedule=None, default_args=DEFAULT_ARGS)
def cleanup() -> None:
    """Wire the graph."""
    remove_old_reports()


cleanup()
''',
    "flows/cleanup.py": '''"""Our own flow."""

from prefect import flow


@flow
def cleanup() -> None:
    """Remove reports nobody reads any more."""
''',
    "tests/test_ours.py": '''"""Our own test."""

from flight_delays.stages.score import our_own_helper


def test_ours() -> None:
    assert our_own_helper() == "ours"
''',
}
# Files that the team adds beside the template's, on each engine.
OWN_FILES = {
    "airflow": {"dags/cleanup.py": MINE["dags/cleanup.py"]},
    "dagster": {f"{PACKAGE}/defs/cleanup.py": '"""Our own asset."""\n'},
    "prefect": {"flows/cleanup.py": MINE["flows/cleanup.py"]},
    "kubeflow": {"pipelines/cleanup.py": '"""Our own pipeline."""\n'},
}
LOGO = b"\x89PNG\r\n\x1a\n\x00\xff"
OWN_TEST = '''"""Our own test: what we added to a stage, and what our domain needs."""

from types import SimpleNamespace

import numpy as np

from flight_delays.domain.problem import late_share
from flight_delays.stages.score import our_own_helper


def test_our_helper() -> None:
    assert our_own_helper() == "ours"


def test_our_domain() -> None:
    probabilities = np.array([[0.2, 0.8], [0.9, 0.1]])
    model = SimpleNamespace(classes_=[0, 1], predict_proba=lambda rows: probabilities)
    assert late_share(model, [1, 2]) == 0.5
'''
# The services whose port the team changes.
SERVICES = {
    "airflow": "airflow.yaml",
    "dagster": "dagster.yaml",
    "prefect": "prefect.yaml",
    "kubeflow": "mlflow_server.yaml",
}
PORTS = '    ports: ["127.0.0.1:8090:8080"]'
DELETED = ["data/sample/2013-01-01.parquet", "data/drift", "deploy/kubernetes/README.md"]
TASK = '\n[tool.poe.tasks.nightly]\ncmd = "echo good night"\n'


def work(project: Path, engine: str) -> None:
    """Do a year's work in a fresh project on the default answers' package, and commit it."""
    shutil.rmtree(project / PACKAGE / "domain")
    shutil.copytree(DOMAIN, project / PACKAGE / "domain")
    config = project / "config" / "pipeline.toml"
    substitute(config, r"^trials = 5 ", "trials = 1 ")
    substitute(config, r"^candidates = .*", 'candidates = ["linear", "tree"]')
    for file, pattern, new in edits(engine):
        substitute(project / file, pattern, new)
    for name, content in own_files(engine):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_bytes(content)
    for name in DELETED:
        if (path := project / name).is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    commit_all(project, "A year of our work")


def edits(engine: str) -> Iterator[tuple[Path, str, str]]:
    """Yield changes of the template's files: the file, a pattern, and what takes its place."""
    yield PACKAGE / "stages" / "score.py", r"\Z", STAGE
    yield PACKAGE / "stages" / "score.py", r"^log = .*", 'log = get_logger("our.score")'
    yield Path("README.md"), r"\Z", README
    yield Path("README.md"), r"^## Commands$", "## Our commands"
    yield Path("pyproject.toml"), r'^  "threadpoolctl', '  "tabulate>=0.9",\n  "threadpoolctl'
    yield Path("pyproject.toml"), r"\Z", TASK
    yield Path("deploy/compose") / SERVICES[engine], r"^    ports: .*", PORTS


def own_files(engine: str) -> Iterator[tuple[str, bytes]]:
    """Yield files of the team's own."""
    for name, text in OWN_FILES[engine].items():
        yield name, text.encode()
    yield "tests/test_ours.py", OWN_TEST.encode()
    yield "docs/logo.png", LOGO
    yield "data/sample/2013-03-01.parquet", b"PAR1 our own"


def lost(project: Path, engine: str) -> list[str]:
    """Return the work that is not in the project any more."""
    missing = [
        f"{new!r} in {file}"
        for file, _, new in edits(engine)
        if new not in (project / file).read_text()
    ]
    missing += [
        name for name, content in own_files(engine) if (project / name).read_bytes() != content
    ]
    missing += [f"{name} is back" for name in DELETED if (project / name).exists()]
    return missing
