"""Where the project is, and what is in a folder. Standard library only: DAG files need it."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from .errors import SettingsError


def project_root() -> Path:
    """Return the folder that holds config/pipeline.toml.

    It is $PIPELINE_HOME where that is set (containers), else the checkout of this package.

    Raises:
        SettingsError: The folder has no configuration.
    """
    home = os.environ.get("PIPELINE_HOME")
    root = Path(home).resolve() if home else Path(__file__).resolve().parents[3]
    if not config_file(root).is_file():
        raise SettingsError(
            f"no config/pipeline.toml in {root}: set PIPELINE_HOME to the project's folder"
        )
    return root


def make_state_folder(root: Path) -> None:
    """Create var/ for its owner only: logs, log-ins and databases are private."""
    with contextlib.suppress(OSError):
        (root / "var").mkdir(mode=0o700)


def folder_digest(folder: Path) -> str:
    """Return the SHA-256 of the names and contents of all files below a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def config_file(root: Path) -> Path:
    """Return the configuration of the project at `root`."""
    return root / "config" / "pipeline.toml"
