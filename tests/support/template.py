"""This repository as a template: a copy of it, a project of it, and git in either."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from copier import run_copy

ROOT = Path(__file__).resolve().parents[2]
Render = Callable[..., Path]


def copy_sources(folder: Path) -> Path:
    """Copy the working tree, uncommitted work too, into a folder, and return that."""
    for name in git(ROOT, "ls-files", "-z", "-co", "--exclude-standard").split("\0"):
        if (source := ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name)
    return folder


def make_project(
    template: Path, folder: Path, answers: dict[str, Any], with_data: bool = False
) -> None:
    """Render a template into a folder, without a question and without trust."""
    exclude = () if with_data else ("*.parquet",)
    run_copy(str(template), folder, data=answers, exclude=exclude, defaults=True, quiet=True)


def commit_all(folder: Path, message: str) -> None:
    """Commit all there is in a folder."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", f"--message={message}")


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder and return what it prints."""
    done = subprocess.run(
        ["git", *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout
