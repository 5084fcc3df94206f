"""The Cookiecutter doorway: it asks, Copier renders, and the project is the one Copier makes."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cookiecutter.generate import generate_context  # type: ignore[import-untyped]
from cookiecutter.prompt import prompt_for_config  # type: ignore[import-untyped]
from cookiecutter.utils import create_env_with_context  # type: ignore[import-untyped]
from copier import run_copy
from jinja2 import Environment, FileSystemLoader

from ..support.questions import CONFIG, QUESTIONS, choices, read_answers
from ..support.template import ROOT, commit_all, git
from ..support.texts import make_texts

NAMES = {"project_name", "project_slug", "package_name"}
DEFAULTS = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
PROMPTS = DEFAULTS["__prompts__"]
ASKED = [name for name in DEFAULTS if not name.startswith("_")]
FIRST_PROMPT = PROMPTS["project_name"]

# Answers as somebody types them, and as Copier takes them.
TYPED = {
    "project_name": 'Zoë\'s "Größe" & <Co>',
    "orchestrator": "2",
    "problem": "2",
    "alerting_slack": "n",
    "monitoring": "2",
}
MEANT: dict[str, Any] = {
    "project_name": 'Zoë\'s "Größe" & <Co>',
    "project_slug": "zo-s-gr-e-co",
    "orchestrator": "dagster",
    "problem": "regression",
    "alerting": ["email"],
    "monitoring": "none",
}
HOSTILE = [
    """O'Neil's \"\"\"flights\"\"\" '''x''' back\\slash \\n \\u0041 \\" -- --trust end\\\\""",
    "a: b # c, [d] {e} & *f !g %h @i `j` $(k) | > ; <!-- --> {{ cookiecutter.x }} {% raw %} {# ~",
    "日本 🚀 👩\u200d💻 Ünï",
]
REFUSED: list[tuple[dict[str, str], str]] = [
    ({"project_slug": "Bad_"}, "Must be lower-case letters a to z and digits, in parts"),
    ({"project_slug": "../evil"}, "Must be lower-case letters a to z and digits, in parts"),
    ({"project_slug": "deep/er"}, "Must be lower-case letters a to z and digits, in parts"),
    ({"project_slug": "x" * 300}, "Must have at most 60 characters"),
    ({"package_name": "class"}, "is taken by Python, a package this project needs"),
    ({"project_name": "日本語"}, "Must contain a letter from a to z or a digit"),
    ({"project_name": "a\x7fb"}, "no line breaks, tabs or control characters"),
    ({"project_name": "a\x85b"}, "no line breaks, tabs or control characters"),
    ({"workers": "2"}, "Distributed workers share no disk, and mlflow_local is a file"),
]
PATH_WITHOUT_COPIER = [
    folder
    for folder in os.environ["PATH"].split(os.pathsep)
    if not any(Path(folder, program).exists() for program in ("copier", "uvx"))
]
# Programs that run the Copier of these tests, which `hide_copier` hides from Cookiecutter.
COPIER = f'#!/bin/sh\nunset PYTHONPATH\nexec "{sys.executable}" -m copier "$@"\n'
UVX = COPIER.replace(
    "unset", 'test "$1 $2 $3" = "--from copier>={} copier" || exit 9\nshift 3\nunset'
)


@dataclass
class Desk:
    """A person's computer: a home, a folder for temporary files, and programs on the path."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def add_program(self, name: str, script: str) -> None:
        program = self.folder / "bin" / name
        program.write_text(script)
        program.chmod(0o755)

    def hide_copier(self) -> None:
        """Make `import copier` fail as where it is not installed."""
        (self.folder / "python").mkdir()
        (self.folder / "python" / "copier.py").write_text("raise ImportError('not installed')\n")

    def cookiecutter(
        self, *arguments: str | Path, typed: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run Cookiecutter; who types nothing takes every default."""
        answers = [(typed or {}).get(name, "") for name in ASKED]
        return subprocess.run(
            [sys.executable, "-m", "cookiecutter", *arguments],
            cwd=self.work,
            env=self.environment(),
            input="".join(f"{answer}\n" for answer in answers),
            capture_output=True,
            encoding="utf-8",
            check=False,
        )

    def copier(self, *arguments: str | Path) -> str:
        """Run Copier and return what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "copier", *arguments],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            encoding="utf-8",
            check=True,
        )
        return done.stdout

    def environment(self) -> dict[str, str]:
        return os.environ | {
            "HOME": str(self.home),
            "PATH": os.pathsep.join([str(self.folder / "bin"), *PATH_WITHOUT_COPIER]),
            "PYTHONPATH": str(self.folder / "python"),
            "PYTHONUTF8": "1",
            "TMPDIR": str(self.temporary),
        }

    def left_behind(self) -> list[str]:
        """Return the files in the folders of the work and of temporary files."""
        found = [*self.work.rglob("*"), *self.temporary.rglob("*")]
        return [str(path.relative_to(self.folder)) for path in found]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Return a computer with git and with Copier in Cookiecutter's own environment."""
    desk = Desk(tmp_path)
    for name in ("home", "tmp", "work", "bin"):
        (tmp_path / name).mkdir()
    program = shutil.which("git")
    assert program
    (tmp_path / "bin" / "git").symlink_to(program)
    return desk


@pytest.fixture(scope="module")
def default_project(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what `copier copy --defaults` makes; do not change it."""
    return make_expected(template, tmp_path_factory.mktemp("default"))


def make_expected(template: Path | str, folder: Path, **arguments: Any) -> Path:
    """Return the project that `copier copy` makes."""
    run_copy(str(template), folder, defaults=True, quiet=True, **arguments)
    return folder


def read_files(project: Path) -> dict[str, tuple[int, bytes]]:
    """Return the mode and bytes of every file, the record of the answers too."""
    files = (path for path in project.rglob("*") if path.is_file())
    return {
        str(path.relative_to(project)): (path.stat().st_mode, path.read_bytes()) for path in files
    }


def assert_made(
    done: subprocess.CompletedProcess[str], desk: Desk, slug: str, expected: Path
) -> None:
    assert done.returncode == 0, done.stderr
    assert [path.name for path in desk.work.iterdir()] == [slug]
    assert read_files(desk.work / slug) == read_files(expected)
    # Cookiecutter deletes its copy of the template and forgets the empty folder around it.
    assert [path.name[:12] for path in desk.temporary.rglob("*")] == ["cookiecutter"]


# cookiecutter.json


def test_cookiecutter_json_is_built_from_copier_yml() -> None:
    build: Callable[[], str] = runpy.run_path(str(ROOT / "scripts/build_cookiecutter_json.py"))[
        "build"
    ]
    assert (ROOT / "cookiecutter.json").read_text(encoding="utf-8") == build(), (
        "copier.yml has changed: run scripts/build_cookiecutter_json.py"
    )


@pytest.mark.parametrize("name", [name for name in QUESTIONS if name not in NAMES])
def test_every_choice_is_asked(name: str) -> None:
    question = QUESTIONS[name]
    if "choices" not in question:
        assert name not in DEFAULTS
    elif question.get("multiselect"):
        asked = {choice: DEFAULTS[f"{name}_{choice}"] for choice in choices(question)}
        assert [choice for choice, default in asked.items() if default] == question["default"]
        assert DEFAULTS["_multiselect"][name] == choices(question)
    else:
        assert sorted(DEFAULTS[name]) == sorted(choices(question))
        assert DEFAULTS[name][0] == question["default"]


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Cookiecutter import the template's extension, as it does by itself."""
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize(
    ("project_name", "slug", "package"),
    [
        ("Flight Delays", "flight-delays", "flight_delays"),
        ("Airflow", "airflow-pipeline", "airflow_pipeline"),
        ("2024: Forecast!", "2024-forecast", "project_2024_forecast"),
        ("x" * 200, "x" * 50, "x" * 50),
    ],
)
def test_names_are_derived(project_name: str, slug: str, package: str) -> None:
    context = generate_context(
        str(ROOT / "cookiecutter.json"), extra_context={"project_name": project_name}
    )
    answers = prompt_for_config(context, no_input=True)
    assert (answers["project_slug"], answers["package_name"]) == (slug, package)
    assert answers["__folder"] == slug


@pytest.mark.usefixtures("importable")
def test_macros_say_the_same_as_in_copier() -> None:
    cookiecutter = create_env_with_context({"cookiecutter": DEFAULTS})
    copier = Environment(
        loader=FileSystemLoader(ROOT),
        extensions=["jinja2_ansible_filters.AnsibleCoreFiltersExtension"],
        autoescape=False,
    )
    one, other = (
        environment.get_template("includes/questions.jinja").module
        for environment in (cookiecutter, copier)
    )
    macros: Iterable[str] = ("slug_of", "package_of", "check_slug", "check_project_name")
    for text in make_texts(300):
        for macro in macros:
            assert getattr(one, macro)(text) == getattr(other, macro)(text), (macro, text)


# Where Copier is


def test_copier_is_importable(template: Path, desk: Desk, tmp_path: Path) -> None:
    done = desk.cookiecutter(template, typed=TYPED)
    assert_made(
        done, desk, "zo-s-gr-e-co", make_expected(template, tmp_path / "expected", data=MEANT)
    )
    assert read_answers(desk.work / "zo-s-gr-e-co")["_src_path"] == str(template)
    for name in ASKED:
        prompt = PROMPTS[name]
        words = prompt if isinstance(prompt, str) else prompt["__prompt__"]
        assert words in " ".join(done.stdout.split()), name


@pytest.mark.parametrize("name", ["copier", "uvx"])
def test_copier_is_a_program(template: Path, desk: Desk, default_project: Path, name: str) -> None:
    """The uvx here is no uvx, which would need the network: it runs Copier as uvx would."""
    desk.hide_copier()
    oldest = CONFIG["_min_copier_version"]
    desk.add_program(name, COPIER if name == "copier" else UVX.format(oldest))
    done = desk.cookiecutter(template, "--no-input")
    assert_made(done, desk, "flight-delays", default_project)


@pytest.mark.parametrize("old", ["", "copier 9.18.2", "copier 8.0"])
def test_copier_is_absent_or_too_old(template: Path, desk: Desk, old: str) -> None:
    desk.hide_copier()
    if old:
        desk.add_program("copier", f"#!/bin/sh\necho {old}\n")
    done = desk.cookiecutter(template)
    assert done.returncode == 1
    sentence = f"Copier {CONFIG['_min_copier_version']} or newer renders this template, and it is"
    assert done.stderr.startswith(sentence)
    assert done.stderr.count("\n") == 1
    assert FIRST_PROMPT not in done.stdout
    assert desk.left_behind() == []
    assert not list(desk.home.iterdir())


# Where the template is, and which version


def test_relative_path(template: Path, desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "templates").symlink_to(template.parent)
    desk.work.joinpath("inner").mkdir()
    relative = Path("..", "templates", template.name)
    done = desk.cookiecutter(relative, "--no-input", "--output-dir", "inner")
    assert done.returncode == 0, done.stderr
    address = tmp_path / "templates" / template.name
    expected = make_expected(address, tmp_path / "expected")
    assert read_files(desk.work / "inner" / "flight-delays") == read_files(expected)
    assert read_answers(expected)["_src_path"] == str(address)


@pytest.mark.parametrize(
    ("typed", "address"),
    [
        ("gh:acme/pipelines", "https://github.com/acme/pipelines.git"),
        ("https://github.com/acme/pipelines", "https://github.com/acme/pipelines"),
        ("https://git.example.org/acme/pipelines", "git+https://git.example.org/acme/pipelines"),
        ("git@git.example.org:acme/pipelines.git", "git@git.example.org:acme/pipelines.git"),
    ],
)
@pytest.mark.usefixtures("server")
def test_remote_address(desk: Desk, typed: str, address: str) -> None:
    done = desk.cookiecutter(typed, "--no-input")
    assert done.returncode == 0, done.stderr
    project = desk.work / "flight-delays"
    assert read_answers(project)["_src_path"] == address
    assert "up-to-date" in desk.copier("check-update", project)


def test_project_from_a_remote_address_is_updated(server: Path, desk: Desk, tmp_path: Path) -> None:
    done = desk.cookiecutter("gh:acme/pipelines", "--no-input", "alerting_slack=no")
    data, expected = "--data=alerting=[email]", tmp_path / "expected"
    address = "https://github.com/acme/pipelines.git"
    desk.copier("copy", "--defaults", data, address, expected)
    assert_made(done, desk, "flight-delays", expected)
    project = desk.work / "flight-delays"
    assert read_answers(project)["_commit"] == "v0.1.0"

    release(server, "v0.2.0")
    git(project, "init", "--quiet")
    commit_all(project, "Start")
    desk.copier("update", "--defaults", project)
    assert read_answers(project)["_commit"] == "v0.2.0"
    assert (project / "NEWS").read_text() == "v0.2.0\n"


@pytest.fixture
def server(template: Path, desk: Desk) -> Path:
    """Return the repository that git finds at two servers' addresses, without a network."""
    addresses = ("https://github.com/", "https://git.example.org/", "git@git.example.org:")
    config = "".join(f"    insteadOf = {address}\n" for address in addresses)
    (desk.home / ".gitconfig").write_text(f'[url "{desk.folder}/server/"]\n{config}')
    return shutil.copytree(template, desk.folder / "server" / "acme" / "pipelines.git")


def test_checkout(template: Path, desk: Desk, tmp_path: Path) -> None:
    """Without --checkout it is the newest release, as in `copier copy`."""
    repository = tmp_path / "repository"
    shutil.copytree(template, repository)
    release(repository, "v0.2.0")
    release(repository, "v0.3.0.dev1")
    for arguments, version in (((), "v0.2.0"), (("--checkout", "v0.1.0"), "v0.1.0")):
        done = desk.cookiecutter(repository, "--no-input", "-o", version, *arguments)
        assert done.returncode == 0, done.stderr
        expected = make_expected(repository, tmp_path / version, vcs_ref=version)
        assert read_files(desk.work / version / "flight-delays") == read_files(expected)
        assert read_answers(expected)["_commit"] == version


def test_checkout_of_a_tag_that_does_not_exist(template: Path, desk: Desk) -> None:
    done = desk.cookiecutter(template, "--no-input", "--checkout", "v7")
    assert done.returncode == 1
    assert "v7" in done.stderr
    assert desk.left_behind() == []


def test_zip_file_is_refused(template: Path, desk: Desk, tmp_path: Path) -> None:
    archive = tmp_path / "template.zip"
    git(template, "archive", "--prefix=template/", f"--output={archive}", "HEAD")
    done = desk.cookiecutter(archive, "--no-input")
    assert done.returncode == 1
    assert f"{archive} is neither a folder nor a git repository" in done.stderr
    assert not list(desk.work.iterdir())


# Answers


def test_no_input(template: Path, desk: Desk, tmp_path: Path) -> None:
    given = {"project_name": "It's", "workers": "distributed", "tracking": "mlflow_remote"}
    done = desk.cookiecutter(
        template, "--no-input", *(f"{name}={answer}" for name, answer in given.items())
    )
    assert_made(done, desk, "it-s", make_expected(template, tmp_path / "expected", data=given))
    assert FIRST_PROMPT not in done.stdout


def test_replay(template: Path, desk: Desk, tmp_path: Path) -> None:
    first = desk.cookiecutter(template, typed=TYPED)
    assert first.returncode == 0, first.stderr
    shutil.rmtree(desk.work / MEANT["project_slug"])
    shutil.rmtree(desk.temporary)
    desk.temporary.mkdir()
    again = desk.cookiecutter(template, "--replay")
    expected = make_expected(template, tmp_path / "expected", data=MEANT)
    assert_made(again, desk, MEANT["project_slug"], expected)
    assert FIRST_PROMPT not in again.stdout


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answer(template: Path, desk: Desk, tmp_path: Path, name: str) -> None:
    done = desk.cookiecutter(template, typed={"project_name": name})
    expected = make_expected(template, tmp_path / "expected", data={"project_name": name})
    answers = read_answers(expected)
    assert answers["project_name"] == name
    assert_made(done, desk, answers["project_slug"], expected)


@pytest.mark.parametrize(("typed", "sentence"), REFUSED)
def test_bad_answer_is_refused(
    template: Path, desk: Desk, typed: dict[str, str], sentence: str
) -> None:
    done = desk.cookiecutter(template, typed=typed)
    assert done.returncode == 1
    (question,) = typed
    first = done.stderr.splitlines()[0]
    assert first.startswith(f"Validation error for question '{question}': ")
    assert sentence in first
    assert desk.left_behind() == []
    assert {path.name for path in desk.folder.iterdir()} == {"home", "tmp", "work", "bin"}


# The folder


@pytest.mark.parametrize("arguments", [(), ("--overwrite-if-exists",), ("-f", "-s")])
def test_project_that_exists_is_left_alone(
    template: Path, desk: Desk, arguments: tuple[str, ...]
) -> None:
    project = desk.work / "flight-delays"
    project.mkdir()
    (project / "README.md").write_text("mine\n")
    done = desk.cookiecutter(template, "--no-input", *arguments)
    assert done.returncode == 1
    if arguments:
        assert done.stderr.startswith(f"{project} is not empty. To take the template into")
        assert f"copier copy {template} {project}\n" in done.stderr
    else:
        assert "already exists" in done.stdout
    assert [path.name for path in desk.work.rglob("*")] == ["flight-delays", "README.md"]
    assert (project / "README.md").read_text() == "mine\n"


def test_empty_repository_is_filled(template: Path, desk: Desk, default_project: Path) -> None:
    project = desk.work / "flight-delays"
    project.mkdir()
    git(project, "init", "--quiet")
    done = desk.cookiecutter(template, "--no-input", "--overwrite-if-exists")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(project / ".git")
    assert read_files(project) == read_files(default_project)


def release(repository: Path, version: str) -> None:
    """Add a file to the template and tag that as a version."""
    (repository / "template" / "NEWS").write_text(f"{version}\n")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", f"--message={version}")
    git(repository, "tag", version)
