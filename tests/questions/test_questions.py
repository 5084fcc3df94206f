"""The questions: bad answers are refused, derived names are good, and every answer counts."""

import re
import sys
import tomllib
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from copier import run_copy

from ..support.questions import CONFIG, QUESTIONS, choices, read_answers, read_project
from ..support.template import ROOT, Render

CONTROL = "no line breaks, tabs or control characters"
SLUG = "lower-case letters a to z and digits, in parts joined by single hyphens"
PACKAGE = "begin with a letter and be lower-case letters a to z and digits"
TAKEN = "is taken by Python, a package this project needs, or one of its folders"
EMAIL = "Must be empty or one address like ada@example.org"

BAD_ANSWERS = [
    ("project_name", "", "Must not be empty"),
    ("project_name", "   ", "Must not be empty"),
    ("project_name", " Flights", "Must not begin or end with a space"),
    ("project_name", "Flight\nDelays", CONTROL),
    ("project_name", "Flight\tDelays", CONTROL),
    ("project_name", "Flight\x1b[31mDelays", CONTROL),
    ("project_name", "Flight\u2028Delays", CONTROL),
    ("project_name", "Flight\u202eDelays", CONTROL),
    ("project_name", "日本語", "Must contain a letter from a to z or a digit"),
    ("project_name", "🚀!", "Must contain a letter from a to z or a digit"),
    ("project_name", "x" * 201, "Must have at most 200 characters; this has 201"),
    *[("project_slug", bad, SLUG) for bad in ("", "-a", "a-", "a--b", "A", "a_b", "a b", "é")],
    *[("project_slug", bad, SLUG) for bad in ("a\n", "a.b", "a/b", "../a")],
    ("project_slug", "x" * 61, "Must have at most 60 characters"),
    *[("project_slug", bad, TAKEN) for bad in ("airflow", "apache-airflow", "scikit-learn")],
    *[("project_slug", bad, TAKEN) for bad in ("mlflow", "test", "class", "json", "src")],
    *[("package_name", bad, PACKAGE) for bad in ("", "1a", "_a", "a__b", "a_", "A", "a-b", "a\n")],
    *[("package_name", bad, PACKAGE) for bad in ("a.b", "é", "a b", "__init__")],
    ("package_name", "x" * 71, "Must have at most 70 characters"),
    *[("package_name", bad, TAKEN) for bad in ("airflow", "sklearn", "mlflow", "polars", "yaml")],
    *[("package_name", bad, TAKEN) for bad in ("class", "match", "true", "json", "cgi", "tomllib")],
    *[("package_name", bad, TAKEN) for bad in ("test", "tests", "dags", "data", "config", "var")],
    ("description", "", "Must not be empty"),
    ("description", "One\n", "Must not begin or end with a space or line break"),
    ("description", "One\x00two", "no tabs or control characters"),
    ("description", "One\ttwo", "no tabs or control characters"),
    ("description", "x" * 501, "Must have at most 500 characters"),
    ("author_name", "", "Must not be empty"),
    ("author_name", "Ada\nLovelace", CONTROL),
    ("author_name", "x" * 251, "Must have at most 250 characters"),
    *[("author_email", bad, EMAIL) for bad in ("ada", "ada@", "@example.org", "ada@example")],
    *[("author_email", bad, EMAIL) for bad in ("a@b@example.org", "ada @example.org", " ")],
    *[("author_email", bad, EMAIL) for bad in ("ada@example..org", "ada@example.org\n")],
    *[("author_email", bad, EMAIL) for bad in ("Ada <ada@example.org>", "ada@-example.org")],
    ("license", "GPL", "is not in ['MIT', 'Apache-2.0', 'Proprietary']"),
    ("python_version", "3.10", "is not in ['3.11', '3.12', '3.13']"),
    ("orchestrator", "luigi", "is not in ['airflow', 'dagster', 'prefect', 'kubeflow']"),
    ("tracking", "wandb", "is not in ['mlflow_local', 'mlflow_server', 'mlflow_remote']"),
    ("serving", "grpc", "is not in ['batch', 'rest']"),
    ("monitoring", "nagios", "is not in ['prometheus', 'none']"),
    ("ci", "jenkins", "is not in ['github', 'gitlab', 'none']"),
    ("workers", "some", "is not in ['single_machine', 'distributed']"),
    # Without an answer to `tracking` it is mlflow_local.
    ("workers", "distributed", "Distributed workers share no disk, and mlflow_local is a file"),
    ("alerting", ["pager"], "is not in ['slack', 'email']"),
    ("problem", "ranking", "is not in ['classification', 'regression']"),
]

OTHER_TEXT = {
    "project_name": "Other Name",
    "project_slug": "other-slug",
    "package_name": "other_package",
    "description": "Does something else.",
    "author_name": "Ada Lovelace",
    "author_email": "ada@example.org",
}


@pytest.mark.parametrize(("question", "answer", "sentence"), BAD_ANSWERS)
def test_bad_answer_is_refused(
    sources: Path, tmp_path: Path, question: str, answer: object, sentence: str
) -> None:
    with pytest.raises(ValueError, match=question) as refusal:
        run_copy(str(sources), tmp_path, data={question: answer}, defaults=True, quiet=True)
    assert sentence in str(refusal.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("project_name", "slug", "package"),
    [
        ("Flight Delays", "flight-delays", "flight_delays"),
        ("odd.name__2 (v1)!", "odd-name-2-v1", "odd_name_2_v1"),
        ("2024 Forecast", "2024-forecast", "project_2024_forecast"),
        ("Airflow", "airflow-pipeline", "airflow_pipeline"),
        ("Test", "test-pipeline", "test_pipeline"),
        ("予測 model", "model", "model"),
        ("four " * 39 + "four", "-".join(["four"] * 10), "_".join(["four"] * 10)),
        ("x" * 200, "x" * 50, "x" * 50),
    ],
)
def test_names_are_derived(render: Render, project_name: str, slug: str, package: str) -> None:
    answers = read_answers(render(project_name=project_name))
    assert (answers["project_slug"], answers["package_name"]) == (slug, package)


def test_defaults_need_no_trust_and_say_what_is_next(
    template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unsafe = {"_tasks", "_migrations", "_jinja_extensions"}
    assert not unsafe & CONFIG.keys()
    folder = tmp_path / "my demo"
    run_copy(str(template), folder, defaults=True)
    message = capsys.readouterr().err
    assert f"cd '{folder}'\n" in message
    assert "uv run poe run\n" in message


OWN_STORE = "MLFLOW_TRACKING_URI=sqlite:///var/mlflow/mlflow.db"


@pytest.mark.parametrize(
    ("answers", "command"),
    [
        (
            {"tracking": "mlflow_remote"},
            f"{OWN_STORE} uv run poe run",
        ),
        (
            {"tracking": "mlflow_server", "workers": "distributed"},
            f"{OWN_STORE} PIPELINE_WORKERS__DISTRIBUTED=false uv run poe run",
        ),
    ],
)
def test_the_first_command_is_that_of_the_readme_and_needs_no_server(
    template: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    answers: dict[str, str],
    command: str,
) -> None:
    run_copy(str(template), tmp_path, data=answers, defaults=True)
    assert f"    {command}\n" in capsys.readouterr().err
    assert f"$ {command}" in (tmp_path / "README.md").read_text()


def test_answers_are_stored(template: Path, tmp_path: Path) -> None:
    run_copy(str(template), tmp_path, defaults=True, quiet=True)
    answers = read_answers(tmp_path)
    assert set(answers) == {*QUESTIONS, "_commit", "_src_path"}
    assert answers["alerting"] == ["slack", "email"]


@pytest.mark.parametrize("name", QUESTIONS)
def test_question_says_what_you_get(name: str) -> None:
    question = QUESTIONS[name]
    assert 20 < len(question["help"]) < 76, "must fit a terminal of 80 columns"
    assert "default" in question
    assert "choices" in question or "validator" in question


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_answer_changes_the_output(render: Render, name: str) -> None:
    projects = [read_project(render(**answers)) for answers in answers_to(name)]
    assert len(projects) > 1
    assert all(one != other for one, other in combinations(projects, 2))


def test_reserved_names_cover_what_a_project_installs(render: Render) -> None:
    """The list is a generated file: see scripts/build_reserved_names.py."""
    reserved = (ROOT / "includes" / "reserved.jinja").read_text(encoding="utf-8")
    groups = []
    for answers in answers_to("orchestrator"):
        for workers in ("single_machine", "distributed"):
            given = {**answers, "workers": workers, "tracking": "mlflow_remote"}
            project = tomllib.loads(read_project(render(**given))["pyproject.toml"].decode())
            groups += [project["project"]["dependencies"], *project["dependency-groups"].values()]
    needed = [item for group in groups for item in group if isinstance(item, str)]
    names = [re.split(r"[^\w.-]", item)[0].lower().replace("-", "_") for item in needed]
    modules = [name.lower() for name in sys.stdlib_module_names if not name.startswith("_")]
    assert names
    assert not [name for name in (*names, *modules) if f'"{name}"' not in reserved]


def answers_to(name: str) -> Iterator[dict[str, Any]]:
    """Yield every answer to a question with choices, and two to a question without."""
    question = QUESTIONS[name]
    if "choices" not in question:
        # What is derived from this answer must not be what changes the output.
        fixed = {"project_slug": "slug", "package_name": "package", "author_name": "Ada"}
        yield from (fixed, {**fixed, name: OTHER_TEXT[name]})
    elif not question.get("multiselect"):
        # The other answers must allow each of these.
        others = {"tracking": "mlflow_remote"} if name == "workers" else {}
        yield from ({**others, name: choice} for choice in choices(question))
    else:
        for count in range(len(choices(question)) + 1):
            yield from ({name: list(some)} for some in combinations(choices(question), count))
