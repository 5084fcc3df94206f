"""A team's own work is not replaced unasked, and files that are replaced are kept."""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from ...core.optional import PACKAGE
from ...core.paths import folder_digest

# The digests of what was written last.
RECORD = Path("var") / "onboard" / "written.json"
CONFIG = "config/pipeline.toml"


def edited(root: Path, files: Mapping[str, str], folders: Iterable[str]) -> list[str]:
    """Return the files, and folders of data, that may hold a team's own work.

    Files that this command wrote are unedited, and so are all files of a project that still has the
    template's sample, unless git knows of a change. Of the settings, only single values are set.
    """
    record = root / RECORD
    written: dict[str, str] = json.loads(record.read_text()) if record.is_file() else {}
    is_new = _has_the_templates_contract(root)

    def is_edited(path: str) -> bool:
        if not (root / path).exists() or _digest(root / path) == written.get(path):
            return False
        if path in files and (root / path).read_text(encoding="utf-8") == files[path]:
            return False
        if path == CONFIG and path not in written:
            return False
        return path in written or not is_new or _git_knows_a_change(root, path)

    return [path for path in (*files, *folders) if is_edited(path)]


def set_aside(root: Path, paths: Iterable[str]) -> Path:
    """Copy what is about to be replaced, and return where to."""
    folder = root / RECORD.parent / f"before-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    for path in paths:
        old, new = root / path, folder / path
        new.parent.mkdir(parents=True, exist_ok=True)
        if old.is_dir():
            shutil.copytree(old, new)
        elif old.exists():
            shutil.copy(old, new)
    return folder


def remember(root: Path, paths: Iterable[str]) -> None:
    """Keep the digests of what was written."""
    record = root / RECORD
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps({path: _digest(root / path) for path in paths}, indent=1))


def _digest(path: Path) -> str:
    return folder_digest(path) if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()


def _has_the_templates_contract(root: Path) -> bool:
    files = (root / "src" / PACKAGE / "domain", root / "tests" / "example" / "domain")
    try:
        ours, example = (ast.parse((folder / "schema.py").read_text()) for folder in files)
    except (OSError, SyntaxError):
        return False
    # The first statement says what the file is for.
    first, second = (ast.dump(ast.Module(tree.body[1:], [])) for tree in (ours, example))
    return first == second


def _git_knows_a_change(root: Path, path: str) -> bool:
    """Tell whether a file that is under git differs from the last commit, or was committed since.

    The first commit of a project is what the template made.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", f"{root}", *arguments, "--", path]
        try:
            return subprocess.run(command, capture_output=True, text=True).stdout.strip()
        except FileNotFoundError:
            return ""

    if not git("ls-files"):
        return False
    commits = git("log", "--format=%H").splitlines()
    return bool(git("status", "--porcelain")) or len(commits) > 1
