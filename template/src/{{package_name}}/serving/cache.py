"""The last good model on this machine's disk, to start with while MLflow cannot be reached.

A pickled model is code: only what was downloaded from the registry is put here, the folder belongs
to its user alone, and nothing is loaded whose content is not what was downloaded.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from ..core import registry, storage, tracking
from ..core.errors import PipelineError
from ..core.paths import folder_digest, project_root
from ..core.redact import redact

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


class Description(BaseModel):
    """What the registry says about a version of the model.

    Attributes:
        key: Unique for what was registered: a version's number may come again in a new registry.
        registry: Address of the registry, without its password.
        created: When it was registered.
        metrics: Of the run that trained it, by name.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: str
    registry: str
    name: str
    version: int
    candidate: str | None = None
    trained_until: str | None = None
    created: datetime
    run_url: str | None = None
    metrics: dict[str, float] = {}


class _Kept(BaseModel):
    description: Description
    digest: str


class NotCached(PipelineError):
    """The cache holds no model that may be loaded; the message says why."""


class Cache:
    """A folder with the files of the last good model and a description of it."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or project_root() / "var" / "serving"
        self._description = self._folder / "champion.json"

    def fetch(self, version: ModelVersion, key: str) -> Path:
        """Return the folder of a version's files, downloaded unless they are here already."""
        import mlflow.artifacts

        with contextlib.suppress(NotCached):
            kept = self._read()
            if kept.description.key == key:
                return self._verified(kept)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = self._files(key)
        # A unique name, since what is there may be what a killed process left.
        temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=self._folder))
        try:
            address = f"models:/{version.name}/{version.version}"
            files = mlflow.artifacts.download_artifacts(address, dst_path=str(temporary))
            shutil.rmtree(target, ignore_errors=True)
            os.replace(files, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return target

    def keep(self, description: Description) -> None:
        """Make a fetched version the one to start with, and remove the others."""
        kept = _Kept(description=description, digest=folder_digest(self._files(description.key)))
        temporary = self._folder / f".{os.getpid()}.json"
        temporary.write_text(kept.model_dump_json(indent=1), encoding="utf-8")
        os.replace(temporary, self._description)
        for entry in self._folder.iterdir():
            if entry.is_dir() and entry != self._files(description.key):
                shutil.rmtree(entry, ignore_errors=True)

    def forget(self) -> None:
        """Keep no model to start with."""
        self._description.unlink(missing_ok=True)

    def last_good(self) -> tuple[Path, Description]:
        """Return the folder of the last good model's files, and its description.

        Raises:
            NotCached: There is none, it is of another registry, or its files were changed.
        """
        kept = self._read_ours()
        return self._verified(kept), kept.description

    def describe(self) -> Description:
        """Return what the last good model is, without a look at its files.

        Raises:
            NotCached: There is none, or it is of another registry.
        """
        return self._read_ours().description

    def _read_ours(self) -> _Kept:
        kept = self._read()
        here = (registry_address(), registry.model_name())
        if (kept.description.registry, kept.description.name) != here:
            raise NotCached(f"the model in {self._folder} is of another project or registry")
        return kept

    def _read(self) -> _Kept:
        try:
            text = self._description.read_text(encoding="utf-8")
            return _Kept.model_validate_json(text)
        except (OSError, ValidationError):
            raise NotCached(f"there is no model in {self._folder}") from None

    def _verified(self, kept: _Kept) -> Path:
        files = self._files(kept.description.key)
        if folder_digest(files) != kept.digest:
            raise NotCached(f"the model in {self._folder} is not what was downloaded")
        return files

    def _files(self, key: str) -> Path:
        return self._folder / f"model-{key}"


def registry_address() -> str:
    """Return the address of the registry, without its password."""
    return redact(tracking.tracking_uri())


def key_of(version: ModelVersion) -> str:
    """Return what tells a registered version from every other, see `Description`."""
    facts = (version.name, version.version, version.run_id, version.source)
    created = version.creation_timestamp
    return storage.fingerprint(registry_address(), *map(str, facts), str(created))
