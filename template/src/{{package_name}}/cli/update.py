"""Bring in a newer version of the template: Copier merges, uv locks, the rest is listed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from ..core.errors import UpdateError
from ..core.paths import project_root

ANSWERS = ".copier-answers.yml"
UNDO = "`git reset --hard && git clean -d --force` takes back what it changed"
CREDENTIALS = re.compile(r"(?<=://)[^\s/@]+@")


@dataclass(frozen=True)
class Versions:
    """The version of the template that the project has, and the newest one there is."""

    current: str
    newest: str
    behind: bool


def update(options: Sequence[str] = ()) -> None:
    """Update the project to the newest release of its template, and lock its dependencies.

    Args:
        options: Options of `copier update`, like `--data monitoring=none`.

    Raises:
        UpdateError: It was not possible, or something is left to do; says what.
    """
    root = project_root()
    before = read_answers(root)
    require_clean(root)
    versions = find_versions(root)
    if not (versions.behind or options):
        say(f"already at {versions.current}, there is nothing newer")
        return
    say(f"updating from {versions.current}, the newest is {versions.newest} …")
    done = copier(root, "update", "--defaults", "--conflict", "inline", "--quiet", *options)
    if done.returncode != 0:
        raise UpdateError(f"Copier stopped: {reason(done.stderr)}\n{UNDO}")
    describe(root, before, read_answers(root))
    if files := git(root, "diff", "--name-only", "--relative", "--diff-filter=U"):
        raise UpdateError(
            "the team and the template changed the same lines of\n"
            + "".join(f"  {name}\n" for name in files)
            + "In each, keep what is right of the lines between <<<<<<< and >>>>>>>, and remove "
            "these marks. Then:\n  uv lock && uv run poe check && git add --all && git commit"
        )
    say("locking the dependencies …")
    if subprocess.run(["uv", "lock"], cwd=root, check=False).returncode != 0:
        raise UpdateError(
            "the files are updated, but `uv lock` found no versions that fit together, see above: "
            f"correct pyproject.toml and lock again, or {UNDO}"
        )
    say("done; before you commit: git diff, uv run poe check, uv run poe test")


def find_versions(root: Path, seconds: float | None = None) -> Versions:
    """Ask the template which versions it has.

    Args:
        root: The project.
        seconds: How long to wait for an answer; with a limit nobody is asked for a password.

    Raises:
        UpdateError: The template cannot be read; names its address.
    """
    address = read_answers(root)["_src_path"]
    if ":" not in address and not Path(address).expanduser().is_absolute():
        raise UpdateError(
            f"the address of the template, '{address}', is relative, and to which folder is not "
            f"known any more: write the whole path as _src_path into {ANSWERS}, and commit it"
        )
    try:
        done = copier(root, "check-update", "--output-format", "json", seconds=seconds)
    except subprocess.TimeoutExpired:
        why = f"no answer within {seconds:g} s"
    else:
        if done.returncode == 0:
            answer = json.loads(done.stdout)
            return Versions(
                answer["current_version"], answer["latest_version"], answer["update_available"]
            )
        why = reason(done.stderr)
    raise UpdateError(f"the template at {CREDENTIALS.sub('', address)} cannot be read: {why}")


def copier(
    root: Path, *arguments: str, seconds: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Copier in the project.

    Raises:
        UpdateError: Copier is not installed.
        subprocess.TimeoutExpired: It took longer than `seconds`.
    """
    if find_spec("copier") is None:
        raise UpdateError("Copier is not installed here: `uv sync` installs it")
    return subprocess.run(
        [sys.executable, "-m", "copier", *arguments],
        cwd=root,
        env=os.environ | ({"GIT_TERMINAL_PROMPT": "0"} if seconds else {}),
        # Without a terminal SSH cannot ask either.
        start_new_session=seconds is not None,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def reason(stderr: str) -> str:
    """Return the line of Copier's or git's complaint that says why."""
    lines = [line.strip(" |") for line in stderr.splitlines() if line.strip(" |")]
    fatal = re.search(r"fatal: .*", stderr)
    sentence = fatal[0] if fatal else lines[-1] if lines else "no reason was given"
    return CREDENTIALS.sub("", sentence)


def read_answers(root: Path) -> dict[str, Any]:
    """Return the answers that the project was made with, and its template's address and version.

    Raises:
        UpdateError: They are not there.
    """
    file = root / ANSWERS
    if not file.is_file():
        raise UpdateError(f"no {ANSWERS} in {root}: git has it, `git log -- {ANSWERS}`")
    answers = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(answers, dict) or not {"_src_path", "_commit"} <= answers.keys():
        raise UpdateError(
            f"{ANSWERS} does not say from which template (_src_path) and version (_commit) of it "
            f"the project was made: git has it, `git log -- {ANSWERS}`"
        )
    return answers


def require_clean(root: Path) -> None:
    """Make sure that an update can be told from the team's work, and taken back.

    Raises:
        UpdateError: No repository, or changes that are not committed; names the files.
    """
    if changed := git(root, "status", "--porcelain", "--", "."):
        raise UpdateError(
            "commit or stash these first, so that the update can be taken back:\n"
            + "\n".join(changed)
        )


def git(root: Path, *arguments: str) -> list[str]:
    """Return the lines that git prints.

    Raises:
        UpdateError: It failed: the project is no repository, for instance.
    """
    command = ["git", "-c", "core.quotePath=false", *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UpdateError(f"git {arguments[0]} failed in {root}: {done.stderr.strip()}")
    return done.stdout.splitlines()


def say(text: str) -> None:
    """Print at once, also where nobody watches: git and uv print beside it."""
    print(text, flush=True)


def describe(root: Path, before: dict[str, Any], after: dict[str, Any]) -> None:
    """Print the step, what became of the answers, and which files are gone."""
    say(f"from {before['_commit']} to {after['_commit']}")
    for name in sorted(name for name in after if not name.startswith("_")):
        if name not in before:
            say(f"  new question: {name}, answered with {after[name]!r}")
        elif before[name] != after[name]:
            say(f"  answer changed: {name}, from {before[name]!r} to {after[name]!r}")
    if gone := git(root, "diff", "--name-only", "--relative", "--diff-filter=D"):
        say("  removed; git has them, and what you changed in them:")
    for name in gone:
        say(f"    {name}")
