"""A project is updated for years, and nothing of the team's work is lost.

docs/update.md promises these tests by name, and those of test_updated_project.py. The
team's work is in team.py, its domain in domain/, and what newer
versions change in changes.py.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from packaging.version import Version

from ..support.questions import QUESTIONS, choices, read_answers
from ..support.template import ROOT, commit_all, git
from . import changes, team
from .projects import NEW, OLD, Updated, make_old_project, owned, release, update

ENGINES: list[str] = choices(QUESTIONS["orchestrator"])


@pytest.fixture(scope="module")
def releases(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a template with the working tree as its old version, a newer one, and more to come."""
    repository = tmp_path_factory.mktemp("releases")
    shutil.copytree(sources, repository, dirs_exist_ok=True)
    git(repository, "init", "--quiet", "--initial-branch=main")
    release(repository, OLD)
    for change in changes.CHANGES:
        change(repository)
    release(repository, NEW)
    for name, change in changes.FURTHER.items():
        git(repository, "checkout", "--quiet", "-b", name, NEW)
        change(repository)
        commit_all(repository, name)
    git(repository, "checkout", "--quiet", "main")
    return repository


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(engine, marks=[] if engine == "airflow" else pytest.mark.slow)
        for engine in ENGINES
    ],
)
def updated(
    request: pytest.FixtureRequest, releases: Path, tmp_path_factory: pytest.TempPathFactory
) -> Updated:
    """Make a project from the old version, do the team's work, and update it, without trust."""
    engine = request.param
    path = make_old_project(releases, tmp_path_factory.mktemp("updated") / "project", engine)
    before = owned(path)
    done = update(path)
    assert done.returncode == 0, done.stderr
    return Updated(path, engine, before, done)


@pytest.fixture(scope="module")
def old_project(releases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with the team's work, not updated yet; do not change it."""
    return make_old_project(releases, tmp_path_factory.mktemp("old") / "project", "airflow")


@pytest.fixture
def project(old_project: Path, tmp_path: Path) -> Path:
    """Return a copy of the project that is not updated yet."""
    return Path(shutil.copytree(old_project, tmp_path / "project"))


# What a team keeps.


def test_no_conflict_where_none_is_promised(updated: Updated) -> None:
    assert git(updated.path, "diff", "--name-only", "--diff-filter=U") == ""
    assert git(updated.path, "diff", "--check") == ""
    unknown = git(updated.path, "ls-files", "--others", "--exclude-standard").split()
    assert unknown == ["CONTACT.md"]


def test_every_edit_is_kept(updated: Updated) -> None:
    assert team.lost(updated.path, updated.engine) == []
    metadata = tomllib.loads((updated.path / "pyproject.toml").read_text())
    assert "tabulate>=0.9" in metadata["project"]["dependencies"]
    assert "nightly" in metadata["tool"]["poe"]["tasks"]


def test_user_owned_files_are_never_touched(updated: Updated) -> None:
    assert len(updated.before) > 30
    assert owned(updated.path) == updated.before


def test_deleted_files_stay_deleted(updated: Updated) -> None:
    deleted = git(updated.path, "log", "--diff-filter=D", "--name-only", "--format=").split()
    assert "deploy/kubernetes/README.md" in deleted
    assert [name for name in deleted if (updated.path / name).exists()] == []


def test_a_given_answer_outlives_a_changed_default(updated: Updated) -> None:
    assert read_answers(updated.path)["serving"] == "batch"
    assert not (updated.path / team.PACKAGE / "serving").exists()


# What a newer version brings.


def test_changes_of_the_template_arrive_beside_edits(updated: Updated) -> None:
    assert 'log.info("has scored' in (updated.path / team.PACKAGE / "stages/score.py").read_text()
    assert '"packaging>=25"' in (updated.path / "pyproject.toml").read_text()
    services = updated.path / "deploy" / "compose" / team.SERVICES[updated.engine]
    assert "start_period: 299s" in services.read_text()
    # Where the team has changed nothing, a project is what a new one is.
    metrics = (updated.path / team.PACKAGE / "ml/metrics/classification.py").read_text()
    assert metrics.endswith(changes.ALIAS)


def test_a_new_question_is_answered_with_its_default_and_named(updated: Updated) -> None:
    assert (updated.path / "CONTACT.md").read_text() == "Ask the night shift.\n"
    assert read_answers(updated.path)["contact"] == "the night shift"
    assert "\n+contact: the night shift\n" in updated.done.stdout


def test_files_that_the_template_removed_go_and_are_named(updated: Updated) -> None:
    assert "files that are gone (git has them)" in updated.done.stdout
    for name in ("tests/example/test_bad_data.py", "tests/stages/test_light_imports.py"):
        assert not (updated.path / name).exists()
        assert f"\nD\t{name}\n" in updated.done.stdout


def test_a_file_that_becomes_the_teams_stays_as_it_is(updated: Updated) -> None:
    assert git(updated.path, "diff", "--name-only", "HEAD", "--", "LICENSE") == ""
    assert (updated.path / "LICENSE").is_file()


def test_the_old_and_the_new_version_are_named_and_locking_follows(updated: Updated) -> None:
    assert f"\n-_commit: {OLD}\n+_commit: {NEW}\n" in updated.done.stdout
    assert read_answers(updated.path)["_commit"] == NEW
    assert (updated.path.parent / "programs" / "called").read_text() == "lock\n"


# From every version there ever was.


def released() -> list[str]:
    """Return the tags of releases of this repository, and the commit before."""
    return ["HEAD~1", *git(ROOT, "tag", "--list", "v*").split()]


@pytest.mark.parametrize("version", released())
def test_every_released_version_and_the_commit_before_can_be_updated(
    version: str, sources: Path, tmp_path: Path
) -> None:
    template = tmp_path / "template"
    template.mkdir()
    archive = subprocess.run(
        ["git", "archive", "--format=tar", version], cwd=ROOT, capture_output=True, check=False
    )
    assert archive.returncode == 0, (
        f"{version} is not in this clone, so updates from it cannot be tested: clone the whole "
        f"history (fetch-depth: 0). {archive.stderr.decode()}"
    )
    subprocess.run(["tar", "-x"], cwd=template, input=archive.stdout, check=True)
    git(template, "init", "--quiet", "--initial-branch=main")
    release(template, OLD)
    project = make_old_project(template, tmp_path / "project", "airflow")
    before = owned(project)
    for path in template.iterdir():
        if path.name != ".git":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(sources, template, dirs_exist_ok=True)
    release(template, NEW)

    copier = [sys.executable, "-m", "copier", "update", "--defaults", "--quiet"]
    subprocess.run(copier, cwd=project, check=True)

    assert read_answers(project)["_commit"] == NEW
    assert git(project, "diff", "--name-only", "--diff-filter=U") == ""
    assert team.lost(project, "airflow") == []
    assert owned(project) == before


# What cannot be merged, and what stops an update.


def test_a_conflict_is_inline_and_ends_with_the_list_of_files(project: Path) -> None:
    done = update(project, "--vcs-ref", "conflict")

    assert done.returncode == 1
    files = ["README.md", f"{team.PACKAGE}/stages/score.py"]
    assert git(project, "diff", "--name-only", "--diff-filter=U").split() == files
    assert "".join(f"\n  {name}" for name in files) in done.stderr
    assert "uv lock && uv run poe check && git add --all . && git commit" in done.stderr
    for name, ours, theirs in [
        (files[0], "## Our commands", "## What it can do"),
        (files[1], 'log = get_logger("our.score")', 'log = get_logger("score")'),
    ]:
        marks = f"<<<<<<< before updating\n{ours}\n=======\n{theirs}\n>>>>>>> after updating\n"
        assert marks in (project / name).read_text()
    # What does not conflict is merged all the same.
    assert "# Newer." in (project / team.PACKAGE / "stages" / "train.py").read_text()
    assert team.lost(project, "airflow") == []


@pytest.fixture(scope="module")
def chosen(old_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Updated:
    """Update to a version of somebody's choice, with another answer, and with no lock possible."""
    path = Path(shutil.copytree(old_project, tmp_path_factory.mktemp("chosen") / "project"))
    options = ("--vcs-ref", "dropped-answer", "--data", "monitoring=none")
    before = owned(path)
    done = update(path, *options, lock="echo 'No solution found' >&2; exit 1")
    return Updated(path, "airflow", before, done)


def test_a_version_can_be_chosen_and_an_answer_switched(chosen: Updated) -> None:
    assert read_answers(chosen.path)["_commit"].startswith(f"{NEW}-1-g")
    assert "\n-monitoring: prometheus\n" in chosen.done.stdout
    assert "\n+monitoring: none\n" in chosen.done.stdout
    assert not (chosen.path / "deploy" / "prometheus").exists()
    assert team.lost(chosen.path, "airflow") == []


def test_an_answer_that_is_no_longer_offered_is_replaced_and_named(chosen: Updated) -> None:
    assert "\n+python_version: '3.12'\n" in chosen.done.stdout
    metadata = tomllib.loads((chosen.path / "pyproject.toml").read_text())
    assert metadata["project"]["requires-python"] == ">=3.12,<3.14"


def test_dependencies_that_do_not_fit_together_are_said(chosen: Updated) -> None:
    assert chosen.done.returncode == 1
    assert "No solution found" in chosen.done.stderr
    assert "the files are updated, but `uv lock` found no versions" in chosen.done.stderr


def test_a_template_that_wants_a_newer_copier_changes_nothing(project: Path) -> None:
    done = update(project, "--vcs-ref", "newer-copier")

    assert done.returncode == 1
    assert "Copier stopped: This template requires Copier version >= 99.0.0" in done.stderr
    assert git(project, "status", "--porcelain") == ""


def rewrite_address(address: str) -> Callable[[Path], None]:
    """Return a step that gives the template another address."""

    def rewrite(project: Path) -> None:
        answers = read_answers(project)
        (project / ".copier-answers.yml").write_text(
            yaml.safe_dump({**answers, "_src_path": address})
        )
        commit_all(project, "Another address")

    return rewrite


def change_a_file(project: Path) -> None:
    changes.substitute(project / "README.md", r"\A", "Changed. ")


def lose_the_answers(project: Path) -> None:
    (project / ".copier-answers.yml").unlink()
    commit_all(project, "Tidy up")


def lose_the_version(project: Path) -> None:
    changes.substitute(project / ".copier-answers.yml", r"^_commit: .*\n", "")
    commit_all(project, "Tidy up")


def lose_the_history(project: Path) -> None:
    shutil.rmtree(project / ".git")


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (change_a_file, "can be taken back:\n M README.md"),
        (lose_the_answers, "no .copier-answers.yml in "),
        (lose_the_version, "that says from which template (_src_path) and version (_commit)"),
        (lose_the_history, "git status failed in "),
        (rewrite_address("../template"), "the address of the template, '../template', is relative"),
        (rewrite_address("/nowhere/template"), "the template at /nowhere/template cannot be read"),
        (
            rewrite_address("http://me:secret@127.0.0.1:9/template.git"),
            "the template at http://127.0.0.1:9/template.git cannot be read: fatal: unable to",
        ),
    ],
)
def test_what_stops_an_update_is_said_in_a_sentence(
    project: Path, prepare: Callable[[Path], None], sentence: str
) -> None:
    prepare(project)
    before = (project / "README.md").read_text()
    done = update(project)

    assert done.returncode == 1
    assert "UpdateError: " in done.stderr
    assert sentence in done.stderr
    assert "secret" not in done.stderr.partition("UpdateError")[2]
    assert (project / "README.md").read_text() == before


# The promises.


def test_every_promise_links_to_its_test() -> None:
    page = (ROOT / "docs" / "update.md").read_text()
    links = re.findall(r"\[(test_\w+)\]\(\.\./(\S*tests/\S+)\)", page)
    assert len(links) > 12
    for name, file in links:
        assert f"def {name}(" in (ROOT / file).read_text(), name


def test_every_release_is_a_pep_440_tag_with_a_changelog_entry() -> None:
    """In parts that an updating user knows."""
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## (\S+)", text, re.MULTILINE)
    assert versions[0] == "Unreleased"
    assert sorted(versions[1:], key=Version, reverse=True) == versions[1:]
    assert {Version(tag) for tag in released()[1:]} <= {Version(name) for name in versions[1:]}
    parts = set(re.findall(r"^### (.*)", text, re.MULTILINE))
    assert parts <= {"Security", "Feature", "Fix", "Deprecated"}
