"""The projects that come out: every combination of answers, and free text of every kind."""

import ast
import fnmatch
import json
import re
import shutil
import tomllib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import product, repeat
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from copier import run_copy, run_update

from .conftest import Render, git, make_project
from .markdown import visible
from .test_questions import CONFIG, QUESTIONS, choices, read_answers, read_project

EXTRAS: list[dict[str, Any]] = [
    {"alerting": [], "serving": "batch", "monitoring": "none"},
    {"alerting": ["slack", "email"], "serving": "rest", "monitoring": "prometheus"},
]
# Of the questions that decide which files there are; scaffolds/ has the others' answers.
COMBINATIONS: list[dict[str, Any]] = [
    {**answers, **extras}
    for answers in (
        {"problem": problem, "orchestrator": engine, "tracking": tracking, "workers": workers}
        for problem, engine, (tracking, workers) in product(
            choices(QUESTIONS["problem"]),
            choices(QUESTIONS["orchestrator"]),
            [
                ("mlflow_local", "single_machine"),
                *product(("mlflow_server", "mlflow_remote"), ("single_machine", "distributed")),
            ],
        )
    )
    for extras in EXTRAS
]
QUESTION_IN_JINJA = re.compile(r"\{[{%][^}]*\b(_copier\w*|" + "|".join(QUESTIONS) + r")\b")
JINJA = re.compile(r"(?<!\$)\{\{|\{%|\{#")

# Words that only the files of one answer may use.
OWN_WORDS = {
    ("orchestrator", "airflow"): r"airflow",
    ("orchestrator", "dagster"): r"dagster",
    ("orchestrator", "prefect"): r"prefect",
    ("orchestrator", "kubeflow"): r"kubeflow|\bkfp\b",
    ("alerting", "slack"): r"slack",
    ("alerting", "email"): r"(?<!aio)smtp|e-mail|alerts[./]email",
    ("problem", "classification"): r"classif",
    ("problem", "regression"): r"(?<!logistic )\bregression|regressor",
    ("tracking", "mlflow_server"): r"\bs3:9000|mlflow_auth",
    ("serving", "rest"): r"SERVING_|/predict\b",
    ("monitoring", "prometheus"): r"pushgateway|alertmanager|grafana",
}

HOSTILE_LINES = {
    "quotes": """It's "double", 'single', \"\"\"three\"\"\" and '''three''' `ticks`""",
    "backslashes": r"C:\new\table \u0041 \N{BULLET} \x41 \\ and one at the end \ ".strip(),
    "braces": "{one} {{ project_name }} {% raw %} {# no comment #} ${{ x }} ${HOME} $(id) %(x)s",
    "yaml": "# a: b - [c], {d: e} & *f !g | h > i @j ? k",
    "null": "null",
    "date": "2013-01-01",
    "number": "1e3",
    "emoji": "a 🚀 👩‍💻 Zoë 日本語 \u00a0 \u200f",
    "markup": "*a* _b_ **c** __d__ ~~e~~ [f](g) ![h](i) <b>j</b> <!-- k --> &amp; &#65; a|b #",
    "list": "- a",
    "numbered": "1. a",
    "heading": "## a ##",
    "quote": "> a",
    "long": "x" * 200,
    "long words": ("words and " * 20)[:199] + ".",
}
HOSTILE_PARAGRAPHS = """\
First: "line" 'one'

  indented {{ x }}
- item
1. one
===
---
```
# code \\
| a | b |
|---|---|
trailing \n\
end"""

# Each stands for one free answer, and occurs nowhere else.
SENTINELS = {
    "project_name": "Sentinelproject",
    "description": "Sentineldescription",
    "author_name": "Sentinelauthor",
}
NAMES = {"project_slug": "some-slug", "package_name": "some_package"}


class Project(NamedTuple):
    """A rendered project, without the sample data and the record of its answers."""

    answers: dict[str, Any]
    folder: Path
    files: dict[str, bytes]


@pytest.fixture(scope="module")
def projects(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Project]:
    """Return a project for every combination of answers to the questions with choices."""
    folders = [tmp_path_factory.mktemp("combination") for _ in COMBINATIONS]
    with ProcessPoolExecutor() as pool:
        list(pool.map(make_project, repeat(sources), folders, COMBINATIONS))
    return [
        Project(answers, folder, read_project(folder))
        for answers, folder in zip(COMBINATIONS, folders, strict=True)
    ]


def test_every_combination_is_a_different_project(projects: list[Project]) -> None:
    assert len({frozenset(project.files.items()) for project in projects}) == len(COMBINATIONS)


def test_no_jinja_is_left(projects: list[Project], sources: Path) -> None:
    rendered = {path.stem for path in (sources / "template").rglob("*.jinja")}
    for path, text in different_texts(projects):
        assert not QUESTION_IN_JINJA.search(text), path
        # Python doubles braces in f-strings; Prefect fills in fields of its own.
        if path.name in rendered and path.suffix != ".py" and path.name != "prefect.yaml":
            assert not JINJA.search(text), path


def test_no_path_is_a_template(render: Render) -> None:
    for path in render(with_data=True).rglob("*"):
        assert not re.search(r"[{}\[\]]|jinja", path.name, re.IGNORECASE), path


def test_nothing_is_empty(projects: list[Project]) -> None:
    without_data = {Path("data/sample"), Path("data/drift")}
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


@pytest.mark.parametrize("kind", HOSTILE_LINES)
def test_free_line_is_read_back(render: Render, kind: str) -> None:
    assert_read_back(render, dict.fromkeys(SENTINELS, HOSTILE_LINES[kind]))


def test_free_paragraphs_are_read_back(render: Render) -> None:
    assert_read_back(render, {**SENTINELS, "description": HOSTILE_PARAGRAPHS})


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
    """Return the text of a file, or nothing for tests: all channels share stand-in servers."""
    return "" if path.startswith("tests/") else content.decode()


def different_texts(projects: list[Project]) -> set[tuple[Path, str]]:
    """Return path and content of every file of the projects, each different content once."""
    files = {item for project in projects for item in project.files.items()}
    return {(Path(path), content.decode()) for path, content in files}


# What a file says, as a value that can be compared and in which text can be replaced.


def python_strings(source: str) -> list[str]:
    nodes = ast.walk(ast.parse(source))
    return [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]


READERS: dict[str, Callable[[str], Any]] = {
    ".json": json.loads,
    ".md": visible,
    ".py": python_strings,
    ".toml": tomllib.loads,
    ".yaml": lambda text: list(yaml.safe_load_all(text)),
    ".yml": lambda text: list(yaml.safe_load_all(text)),
}


def assert_read_back(render: Render, answers: dict[str, str]) -> None:
    """Assert that every file says the same with free answers as with the sentinels, but for them.

    Text in a file that no reader understands is refused, except for the name in the licence.
    """
    before, after = (render(**NAMES, **free) for free in (SENTINELS, answers))
    assert read_answers(after).items() >= answers.items()
    assert read_project(before).keys() == read_project(after).keys()
    for path, content in read_project(before).items():
        read = READERS.get(Path(path).suffix, str)
        said = (after / path).read_text(encoding="utf-8")
        assert read(said) == replace(read(content.decode()), expected_in(path, answers)), path
        if read is str and path != "LICENSE":
            unquoted = [text for text in SENTINELS.values() if text.encode() in content]
            assert not unquoted, f"{path} holds free text, but no test knows how to read it"


def expected_in(path: str, answers: dict[str, str]) -> dict[str, str]:
    """Return the answers as a file must hold them: package metadata allows one line only."""
    if path != "pyproject.toml":
        return answers
    return {**answers, "description": answers["description"].replace("\n", " ")}


def replace(value: Any, answers: dict[str, str]) -> Any:
    """Return a value with the sentinels in its strings replaced by the answers."""
    if isinstance(value, dict):
        return {replace(key, answers): replace(item, answers) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(replace(item, answers) for item in value)
    if isinstance(value, str):
        by_sentinel = {SENTINELS[name]: text for name, text in answers.items()}
        return re.sub("|".join(by_sentinel), lambda match: by_sentinel[match[0]], value)
    return value
