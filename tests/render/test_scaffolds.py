"""Every scaffold: generated, locked, installed from its own files, checked, tested, and run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from receivers import free_port

from ..support import licences
from ..support.projects import Project, make_installed_project
from ..support.questions import CONFIG, QUESTIONS, choices
from ..support.scaffolds import IDS, SCAFFOLDS
from ..support.stories import ready, wait_for
from ..support.template import ROOT, git

# An answer that a validator refuses beside another; README lists them.
UNSUPPORTED = {frozenset({("tracking", "mlflow_local"), ("workers", "distributed")})}

# Runs on the example are told in these only: each engine, each kind of problem, each Python.
WHOLE = ("default", "dagster", "dagster-rest", "kubeflow", "prefect")

pytestmark = pytest.mark.timeout(3000)


def answers_of(path: Path) -> dict[str, Any]:
    """Return a scaffold's answers, defaults included."""
    answers: dict[str, Any] = yaml.safe_load(path.read_text())
    return {
        name: answers.get(name, question.get("default")) for name, question in QUESTIONS.items()
    }


def chosen(answers: dict[str, Any]) -> set[tuple[str, str]]:
    """Return what was chosen of each question with choices; each channel is a yes or a no."""
    found = set()
    for name, question in QUESTIONS.items():
        if question.get("multiselect"):
            found |= {(choice, f"{choice in answers[name]}") for choice in choices(question)}
        elif "choices" in question:
            found.add((name, answers[name]))
    return found


def all_answers() -> dict[str, list[str]]:
    """Return every question with choices and its answers, as `chosen` names them."""
    found: dict[str, list[str]] = {}
    for name, question in QUESTIONS.items():
        if question.get("multiselect"):
            found |= {choice: ["True", "False"] for choice in choices(question)}
        elif "choices" in question:
            found[name] = choices(question)
    return found


def test_scaffolds_cover_every_pair_of_answers_with_as_few_as_possible() -> None:
    """A new question or answer fails here until a scaffold has it beside every other answer."""
    every = all_answers()
    wanted = {
        frozenset({(one, a), (other, b)})
        for one, other in combinations(every, 2)
        for a in every[one]
        for b in every[other]
    } - UNSUPPORTED
    covered = {
        frozenset(pair)
        for path in SCAFFOLDS
        for pair in combinations(sorted(chosen(answers_of(path))), 2)
    }

    assert sorted(map(sorted, wanted - covered)) == []
    # Fewer cannot do: each answer to one question must meet each answer to the other.
    most, second = sorted(map(len, every.values()), reverse=True)[:2]
    assert len(SCAFFOLDS) == most * second


@pytest.mark.parametrize("pair", UNSUPPORTED, ids=lambda pair: "+".join(v for _, v in sorted(pair)))
def test_an_unsupported_combination_is_refused_and_listed(
    pair: frozenset[tuple[str, str]], sources: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="Distributed workers share no disk") as refused:
        make_installed_project(sources, tmp_path, **dict(pair))
    readme = (ROOT / "README.md").read_text()
    assert all(value in str(refused.value) or value in readme for _, value in pair)
    assert "`workers: distributed` with `tracking: mlflow_local`" in readme
    assert CONFIG["workers"]["validator"]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(path, marks=[] if path.stem == "default" else pytest.mark.slow, id=path.stem)
        for path in SCAFFOLDS
    ],
)
def scaffold(
    request: pytest.FixtureRequest, sources: Path, tmp_path_factory: pytest.TempPathFactory
) -> Project:
    """Return a scaffold's project, installed on its own Python."""
    answers: dict[str, Any] = yaml.safe_load(request.param.read_text())
    project = make_installed_project(sources, tmp_path_factory.mktemp("scaffold"), **answers)
    # The default is checked and run as a user does.
    if request.param.stem != "default":
        project.share_mypy_cache(tmp_path_factory.getbasetemp())
        project.environment["PIPELINE_TRAINING__TRIALS"] = "1"
    return project


def test_code_is_clean_at_birth(scaffold: Project) -> None:
    """Lint, formatting and strict types find nothing."""
    checked = scaffold.run("poe", "check")

    assert "Success: no issues found" in checked.stdout


def test_hooks_pass_at_birth(scaffold: Project) -> None:
    done = scaffold.run("pre-commit", "run", "--all-files")

    hooks = yaml.safe_load((scaffold.path / ".pre-commit-config.yaml").read_text())["repos"][0][
        "hooks"
    ]
    assert done.stdout.count("Passed\n") == len(hooks)


def test_its_own_tests_pass(scaffold: Project, request: pytest.FixtureRequest) -> None:
    whole = request.node.callspec.id in WHOLE
    done = scaffold.run("poe", "test", *([] if whole else ["--ignore=tests/example"]))

    counted = re.search(r"(\d+) passed", done.stdout)
    assert counted
    assert int(counted[1]) > 70
    assert "skipped" not in done.stdout.splitlines()[-1]


def test_it_refuses_to_start_without_what_it_shares(scaffold: Project) -> None:
    """A project with a server of MLflow, or with distributed workers, says what it misses."""
    answers = scaffold.answers
    if answers["tracking"] != "mlflow_local":
        done = scaffold.run("poe", "run", check=False, variables={"MLFLOW_TRACKING_URI": ""})
        assert done.returncode != 0
        assert "MLFLOW_TRACKING_URI is not set" in " ".join((done.stdout + done.stderr).split())
    if answers["workers"] == "distributed":
        done = scaffold.run(
            "poe", "run", check=False, variables={"PIPELINE_WORKERS__DISTRIBUTED": "true"}
        )
        assert done.returncode != 0
        said = " ".join((done.stdout + done.stderr).split())
        assert "distributed workers share no disk" in said
        assert "[storage] root is 'var/artifacts', a folder of one machine" in said


def test_its_pipelines_run_on_its_engine(scaffold: Project) -> None:
    """The first block of its README works as it is there, without any service, and what follows.

    `poe up` is stopped once it has said where everything is.
    """
    *commands, last = first_block(scaffold.path / "README.md")
    [train] = [command for command in (*commands, last) if command.endswith("poe run")]
    ran = scaffold.type(train)
    assert "promoted: version 1 is champion" in " ".join(ran.stdout.split())
    if last.endswith("poe up"):
        start_and_stop(scaffold, last)

    # Where the block trains without the project's server, as all that follows here.
    if uri := re.search(r"MLFLOW_TRACKING_URI=sqlite:///(\S+)", train):
        scaffold.environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{scaffold.path / uri[1]}"
    mlflow = scaffold.mlflow()
    assert mlflow["aliases"] == {"champion": 1}
    [parent] = [run for run in mlflow["runs"] if "pipeline.name" in run["tags"]]
    assert parent["status"] == "FINISHED"
    assert len(mlflow["runs"]) == 4

    scaffold.run("poe", "run", "--pipeline", "inference", "--partition", "2013-02-01")
    [parent] = [
        run for run in scaffold.mlflow()["runs"] if run["tags"].get("pipeline.name") == "inference"
    ]
    assert parent["metrics"]["rows.score"] > 500


def first_block(readme: Path) -> list[str]:
    """Return the commands of the first block for a console, without their comments."""
    block = readme.read_text().split("```console\n")[1].split("```")[0]
    lines = [line.removeprefix("$ ").split("  #")[0].strip() for line in block.splitlines()]
    assert lines[0] == "pip install uv"
    return lines[1:]


def start_and_stop(scaffold: Project, command: str) -> None:
    """Start the servers of a project, wait until they are ready, and press Ctrl-C."""
    names = ("AIRFLOW__API__PORT", "DAGSTER_PORT", "PREFECT_SERVER_API_PORT", "MLFLOW_PORT")
    ports = {name: f"{free_port()}" for name in names}
    log = scaffold.path / "var" / "up.log"
    with log.open("w") as stream:
        up = subprocess.Popen(
            ["bash", "-c", command],
            cwd=scaffold.path,
            env={**os.environ, **ports, "UV_PYTHON": scaffold.python},
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for(lambda: ready(log, up), 240, "poe up to be ready")
    finally:
        os.killpg(up.pid, signal.SIGINT)
        up.wait(timeout=60)
    assert "stopping" in log.read_text()


def test_no_licence_binds_the_user(scaffold: Project) -> None:
    """Each package is permissive or has its reason in docs/dependencies.md, as ours are there."""
    found = licences.installed(scaffold.path)
    found.pop(scaffold.answers["project_slug"])
    excused = licences.rows("Licences")
    binding = {
        package: licence
        for package, licence in found.items()
        if not licences.families(licence) <= licences.FAMILIES.keys() and package not in excused
    }
    assert binding == {}
    for package, cells in licences.rows().items():
        if package in found and package not in excused:
            assert set(cells[1].split(", ")) <= licences.families(found[package]), package


def test_nothing_that_git_should_not_hold(scaffold: Project) -> None:
    """A project that was installed, tested and run has nothing new to commit but its lock file."""
    assert git(scaffold.path, "status", "--porcelain").split() == ["??", "uv.lock"]


def test_each_engine_problem_and_python_is_among_those_that_run_all_their_tests() -> None:
    for question in ("orchestrator", "problem", "python_version"):
        told = {answers_of(path)[question] for path in SCAFFOLDS if path.stem in WHOLE}
        assert told == set(choices(QUESTIONS[question])), question


@pytest.mark.parametrize("path", SCAFFOLDS, ids=IDS)
def test_a_scaffold_says_for_whom_it_is(path: Path) -> None:
    assert path.read_text().startswith("# For ")


def test_every_scaffold_is_listed() -> None:
    text = (ROOT / "docs" / "tested.md").read_text()

    assert set(re.findall(r"`scaffolds/([\w-]+)\.yml`", text)) == set(IDS)
