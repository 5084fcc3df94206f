"""Where MLflow's artefacts are when its store is a file: beside it.

MLflow stores the address of each, and an absolute one would be wrong once the project's folder
is renamed. It stores one below `ROOT`, which this MLflow plugin resolves; pyproject.toml registers
the plugin.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from .mlflow_address import own_store_file, store_file

ROOT = "beside-store:/artifacts"


class ArtifactsBesideStore(LocalArtifactRepository):
    """Artefacts in the folder of the SQLite file."""

    def __init__(self, artifact_uri: str, *args: Any, **kwargs: Any) -> None:
        # If the tracking address names no file, a server was put in front of this one.
        file = store_file() or own_store_file()
        folder = file.parent.resolve() / urlsplit(artifact_uri).path.lstrip("/")
        super().__init__(folder.as_uri(), *args, **kwargs)

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Delete what is below a path, or all, with the folder that MLflow leaves empty."""
        super().delete_artifacts(artifact_path)  # type: ignore[no-untyped-call]
        if artifact_path is None:
            with contextlib.suppress(OSError):
                Path(self.artifact_dir).parent.rmdir()
