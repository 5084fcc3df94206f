"""The projects that come out, of every pair of answers."""

import fnmatch
import re
import shutil
import subprocess
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from copier import run_copy, run_update

from ..support.questions import CONFIG, NAMES, QUESTIONS, choices, read_answers, read_project
from ..support.readers import READERS
from ..support.scaffolds import SCAFFOLDS
from ..support.template import Render, git, make_project

LEAST: dict[str, Any] = {
    "alerting": [],
    "tracking": "mlflow_local",
    "serving": "batch",
    "workers": "single_machine",
    "monitoring": "none",
    "ci": "none",
}
MOST: dict[str, Any] = {
    "alerting": ["slack", "email"],
    "tracking": "mlflow_server",
    "serving": "rest",
    "workers": "distributed",
    "monitoring": "prometheus",
    "ci": "github",
}


def chosen(scaffold: Path) -> dict[str, Any]:
    """Return a scaffold's answers but its names, which would make any two projects differ."""
    answers: dict[str, Any] = yaml.safe_load(scaffold.read_text())
    return {name: answer for name, answer in answers.items() if "choices" in QUESTIONS[name]}


# The scaffolds hold every pair of answers; beside them the smallest and the largest projects.
COMBINATIONS: list[dict[str, Any]] = [
    *map(chosen, SCAFFOLDS),
    *(
        {"problem": problem, "orchestrator": engine, **extras}
        for problem, extras in zip(choices(QUESTIONS["problem"]), (LEAST, MOST), strict=True)
        for engine in choices(QUESTIONS["orchestrator"])
    ),
]
QUESTION_IN_JINJA = re.compile(r"\{[{%][^}]*\b(_copier\w*|" + "|".join(QUESTIONS) + r")\b")
JINJA = re.compile(r"(?<!\$)\{\{|\{%|\{#")

# Words that only the files of one answer may use. Both kinds of problem are in every project:
# onboarding a table may switch from one to the other.
OWN_WORDS = {
    ("orchestrator", "airflow"): r"airflow",
    ("orchestrator", "dagster"): r"dagster",
    ("orchestrator", "prefect"): r"prefect",
    ("orchestrator", "kubeflow"): r"kubeflow|\bkfp\b",
    ("alerting", "slack"): r"slack",
    ("alerting", "email"): r"(?<!aio)smtp|e-mail|channels[./]smtp",
    ("tracking", "mlflow_server"): r"\bs3:9000|mlflow_auth",
    ("serving", "rest"): r"SERVING_|/predict\b",
    ("monitoring", "prometheus"): r"pushgateway|alertmanager|grafana",
    ("ci", "github"): r"\.github/|dependabot",
    ("ci", "gitlab"): r"gitlab",
}


class Project(NamedTuple):
    """A rendered project, without the sample data and the record of its answers."""

    answers: dict[str, Any]
    folder: Path
    files: dict[str, bytes]


@pytest.fixture(scope="module")
def projects(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Project]:
    """Return a project for each of COMBINATIONS."""
    folders = [tmp_path_factory.mktemp("combination") for _ in COMBINATIONS]
    with ProcessPoolExecutor() as pool:
        list(pool.map(make_project, repeat(sources), folders, COMBINATIONS))
    return [Project(read_answers(folder), folder, read_project(folder)) for folder in folders]


def test_every_combination_is_a_different_project(projects: list[Project]) -> None:
    assert len({frozenset(project.files.items()) for project in projects}) == len(COMBINATIONS)


def test_no_jinja_is_left(projects: list[Project], sources: Path) -> None:
    rendered = {path.stem for path in (sources / "template").rglob("*.jinja")}
    for path, text in different_texts(projects):
        # A project has templates of its own, which are filled in when a table is onboarded.
        if path.suffix == ".j2":
            continue
        assert not QUESTION_IN_JINJA.search(text), path
        # Python doubles braces in f-strings; Prefect fills in fields of its own.
        if path.name in rendered and path.suffix != ".py" and path.name != "prefect.yaml":
            assert not JINJA.search(text), path


def test_no_path_is_a_template(render: Render) -> None:
    for path in render(with_data=True).rglob("*"):
        assert not re.search(r"[{}\[\]]|jinja", path.name, re.IGNORECASE), path


def test_nothing_is_empty(projects: list[Project]) -> None:
    data = [Path("data"), Path("tests/example/data")]
    without_data = {folder / name for folder in data for name in ("sample", "drift")}
    for project in projects:
        for path in project.folder.rglob("*"):
            relative = path.relative_to(project.folder)
            empty = not any(path.iterdir()) if path.is_dir() else not path.stat().st_size
            assert not empty or relative in without_data or path.name == "py.typed", relative


def test_every_file_parses(projects: list[Project]) -> None:
    for path, text in different_texts(projects):
        try:
            READERS.get(path.suffix, str)(text)
        except (SyntaxError, ValueError, yaml.YAMLError) as error:
            pytest.fail(f"{path}: {error}")


@pytest.mark.parametrize(("question", "answer"), OWN_WORDS)
def test_no_file_names_another_variant(projects: list[Project], question: str, answer: str) -> None:
    words = re.compile(OWN_WORDS[question, answer], re.IGNORECASE)
    found = {
        f"{path}: {match[0]}"
        for project in projects
        if answer not in project.answers[question]
        for path, content in project.files.items()
        if (match := words.search(path) or words.search(read_by_users(path, content)))
    }
    assert not found


@pytest.mark.parametrize("orchestrator", choices(QUESTIONS["orchestrator"]))
def test_code_is_tidy_under_the_longest_name(orchestrator: str, render: Render) -> None:
    """A long package makes long lines: what has to be several lines is so under any name."""
    everything = {"serving": "rest", "tracking": "mlflow_server", "workers": "distributed"}
    name = " ".join(["Longest"] * 8)
    project = render(orchestrator=orchestrator, project_name=name, **everything)

    assert len(read_answers(project)["package_name"]) == 50
    for command in (("check",), ("format", "--diff")):
        done = subprocess.run(
            ["ruff", *command, "."], cwd=project, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout


def test_table_of_owners_names_files_that_exist(sources: Path) -> None:
    """A path that is misspelt in `_exclude` would be left in projects that must not have it."""
    (table,) = CONFIG["_exclude"]
    template = sources / "template"
    paths = [
        line.strip().replace("{{ package_name }}", "{{package_name}}")[1:]
        for line in table.splitlines()
        if line.strip().startswith("/")
    ]
    assert paths
    existing = [str(path.relative_to(template)) for path in template.rglob("*")]
    existing = [path.removesuffix(".jinja") for path in existing]
    assert not [path for path in paths if not fnmatch.filter(existing, path)]


def test_caches_are_never_copied(render: Render, sources: Path, tmp_path: Path) -> None:
    template, project = tmp_path / "template", tmp_path / "project"
    shutil.copytree(sources, template)
    for name in ("__pycache__/a.pyc", "src/b.pyc", ".ruff_cache/c", ".venv/d", ".DS_Store"):
        path = template / "template" / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    make_project(template, project, NAMES)
    assert read_project(project).keys() == read_project(render(**NAMES)).keys()


def test_update_leaves_the_teams_files_alone(template: Path, tmp_path: Path) -> None:
    run_copy(str(template), tmp_path, data=NAMES, defaults=True, quiet=True)
    domain = Path("src/some_package/domain")
    mine = {Path("data/README.md"): "My data.\n", domain / "schema.py": "# Mine.\n"}
    removed = Path("data/drift/2013-07-01.parquet")
    for path, text in mine.items():
        (tmp_path / path).write_text(text)
    (tmp_path / removed).unlink()
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all", "--force")
    git(tmp_path, "commit", "--quiet", "--message=Mine")

    run_update(tmp_path, data={"alerting": []}, defaults=True, quiet=True, overwrite=True)

    assert {path: (tmp_path / path).read_text() for path in mine} == mine
    assert not (tmp_path / removed).exists()
    assert not any("slack" in path.name for path in tmp_path.rglob("*.py"))


def read_by_users(path: str, content: bytes) -> str:
    """Return the text of a file, or nothing for what any channel shares.

    Those are the tests' stand-in servers, and the start of Alertmanager: it takes the secrets of
    all channels out of its environment.
    """
    shared = path.startswith("tests/") or path == "deploy/alertmanager/start.sh"
    return "" if shared else content.decode()


def different_texts(projects: list[Project]) -> set[tuple[Path, str]]:
    """Return path and content of every file of the projects, each different content once."""
    files = {item for project in projects for item in project.files.items()}
    return {(Path(path), content.decode()) for path, content in files}


# What a file says, as a value that can be compared and in which text can be replaced.
