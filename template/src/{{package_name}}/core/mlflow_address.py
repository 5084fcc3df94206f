"""Where MLflow is: a server, or a SQLite file on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from .answers import TRACKING
from .errors import SettingsError
from .paths import project_root
from .settings import load_environment

_SQLITE = "sqlite:///"


def tracking_uri() -> str:
    """Return $MLFLOW_TRACKING_URI, or the project's own SQLite file where it tracks locally.

    Raises:
        SettingsError: The project tracks on a server, and the variable is not set.
    """
    load_environment()
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if uri:
        return uri
    if TRACKING == "mlflow_server":
        raise SettingsError(
            "MLFLOW_TRACKING_URI is not set: `uv run poe stack up` starts this project's MLflow "
            "server and writes the address into .env"
        )
    if TRACKING == "mlflow_remote":
        raise SettingsError(
            "MLFLOW_TRACKING_URI is not set: put your MLflow server's address into .env, and "
            "MLFLOW_TRACKING_TOKEN or user name and password if it asks for them"
        )
    return f"{_SQLITE}{own_store_file()}"


def own_store_file() -> Path:
    """Return the project's own SQLite file, which is the store unless the variable is set."""
    return project_root() / "var" / "mlflow" / "mlflow.db"


def store_file() -> Path | None:
    """Return the SQLite file, or None where MLflow is a server."""
    uri = tracking_uri()
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None
