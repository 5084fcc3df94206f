"""Bring in a newer version of the template: Copier merges, uv locks, the rest is listed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import yaml
from pydantic import BaseModel

from ..core.errors import UpdateError
from ..core.paths import project_root

ANSWERS = ".copier-answers.yml"
# Of a repository with more in it than the project, only the project: the rest may be others' work.
UNDO = "git restore --source=HEAD --staged --worktree . && git clean -d --force ."
COMMIT = "git add --all . && git commit -- ."
# At once: uv and git print beside it.
say = partial(print, flush=True)
CREDENTIALS = re.compile(r"(?<=://)[^\s/@]+@")


class Versions(BaseModel):
    """The template's version that the project has, and the newest one, as Copier reports them."""

    current_version: str
    latest_version: str
    update_available: bool


def update(options: Sequence[str] = ()) -> None:
    """Update the project to the newest release of its template, and lock its dependencies.

    Args:
        options: Options of `copier update`, like `--data monitoring=none`.

    Raises:
        UpdateError: It was not possible, or something is left to do; says what.
    """
    root = project_root()
    if changed := git(root, "status", "--porcelain", "--", "."):
        raise UpdateError(
            "commit or stash these first, so that the update can be taken back:\n"
            + "\n".join(changed)
        )
    versions = find_versions(root)
    if not (versions.update_available or options):
        say(f"already at {versions.current_version}, there is nothing newer")
        return
    say(f"at {versions.current_version}, the newest is {versions.latest_version} …")
    try:
        copier(root, "update", "--defaults", "--conflict", "inline", "--quiet", *options)
    except UpdateError as error:
        raise UpdateError(f"Copier stopped: {error}\n{_way_back(root)}") from None
    say("what became of the answers, and files that are gone (git has them):")
    say("\n".join(git(root, "diff", "--unified=0", "--", ANSWERS)))
    say("\n".join(git(root, "diff", "--name-status", "--relative", "--diff-filter=D")))
    if files := git(root, "diff", "--name-only", "--relative", "--diff-filter=U"):
        raise UpdateError(
            "the team and the template changed the same lines of\n"
            + "".join(f"  {name}\n" for name in files)
            + "In each, keep what is right of the lines between <<<<<<< and >>>>>>>, and remove "
            f"these marks. Then:\n  uv lock && uv run poe check && {COMMIT}\n{_way_back(root)}"
        )
    say("locking the dependencies …")
    if subprocess.run(["uv", "lock"], cwd=root, check=False).returncode != 0:
        raise UpdateError(
            "the files are updated, but `uv lock` found no versions that fit together, see above: "
            f"correct pyproject.toml and lock again. {_way_back(root)}"
        )
    say("done; before you commit: git diff, uv run poe check, uv run poe test")


def _way_back(root: Path) -> str:
    return f"`cd {shlex.quote(str(root))} && {UNDO}` takes back what it changed"


def find_versions(root: Path, seconds: float | None = None) -> Versions:
    """Ask the template which versions it has.

    Args:
        root: The project.
        seconds: How long to wait for an answer; with a limit there is no password prompt.

    Raises:
        UpdateError: The template is not known, or cannot be read; names its address.
    """
    file = root / ANSWERS
    answers = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if not {"_src_path", "_commit"} <= answers.keys():
        raise UpdateError(
            f"no {ANSWERS} in {root} that says from which template (_src_path) and version "
            f"(_commit) of it the project was made: git has it, `git log -- {ANSWERS}`"
        )
    address = answers["_src_path"]
    if ":" not in address and not Path(address).expanduser().is_absolute():
        raise UpdateError(
            f"the address of the template, '{address}', is relative, and to which folder is not "
            f"known any more: write the whole path as _src_path into {ANSWERS}, and commit it"
        )
    try:
        said = copier(root, "check-update", "--output-format=json", seconds=seconds)
    except UpdateError as error:
        address = CREDENTIALS.sub("", address)
        raise UpdateError(f"the template at {address} cannot be read: {error}") from None
    return Versions.model_validate_json(said)


def copier(root: Path, *arguments: str, seconds: float | None = None) -> str:
    """Run Copier in the project and return what it prints.

    Raises:
        UpdateError: It is not installed, failed, or took longer than `seconds`; says why.
    """
    if find_spec("copier") is None:
        raise UpdateError("Copier is not installed here: `uv sync` installs it")
    try:
        return subprocess.run(
            [sys.executable, "-m", "copier", *arguments],
            cwd=root,
            env=os.environ | ({"GIT_TERMINAL_PROMPT": "0"} if seconds else {}),
            # Without a terminal SSH cannot ask either.
            start_new_session=seconds is not None,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=True,
        ).stdout
    except subprocess.TimeoutExpired:
        raise UpdateError(f"no answer within {seconds:g} s") from None
    except subprocess.CalledProcessError as error:
        raise UpdateError(reason(error.stderr)) from None


def reason(stderr: str) -> str:
    """Return the line of Copier's or git's complaint that says why."""
    lines = [line.strip(" |") for line in stderr.splitlines() if line.strip(" |")]
    fatal = re.search(r"fatal: .*", stderr)
    sentence = fatal[0] if fatal else lines[-1] if lines else "no reason was given"
    return CREDENTIALS.sub("", sentence)


def git(root: Path, *arguments: str) -> list[str]:
    """Return the lines that git prints.

    Raises:
        UpdateError: It is missing, or failed: the project is not a repository, for instance.
    """
    command = ["git", "-c", "core.quotePath=false", *arguments]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UpdateError("git is not on PATH: install it, `apt install git` for one") from None
    if done.returncode != 0:
        raise UpdateError(f"git {arguments[0]} failed in {root}: {done.stderr.strip()}")
    return done.stdout.splitlines()
