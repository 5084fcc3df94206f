"""The seam to MLflow's model registry: the champion, the one before it, and how to change them.

What makes a version champion is the alias alone, which moves in one step. Before it moves, the
version is tagged with its `Succession`, so a process that is killed at any point leaves a state
from which `rollback` finds the champion before. The alias `previous` follows, for people.
"""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock

from .errors import BadInput, ChampionMoved, NoChampion
from .mlflow_address import store_file
from .outcomes import Succession
from .refs import CandidateRef
from .settings import load_settings
from .tracking import client

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
PREVIOUS = "previous"
FINGERPRINT_TAG = "fingerprint"
FEATURES_TAG = "features_fingerprint"
# Of the stored model, see `digest_of`; older code has noted none.
DIGEST_TAG = "digest"
SUCCESSION_TAG = "succession"
# When a person took a version back; no run makes it champion again.
WITHDRAWN_TAG = "withdrawn"
# The succession that the team was notified of.
ANNOUNCED_TAG = "announced"


def model_name() -> str:
    """Return the project's name in the model registry."""
    return load_settings().project.slug


def version_of(alias: str) -> ModelVersion | None:
    """Return the registered version behind an alias, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return client().get_model_version_by_alias(model_name(), alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def require_champion() -> ModelVersion:
    """Return the champion.

    Raises:
        NoChampion: No model has passed the gates yet.
    """
    champion = version_of(CHAMPION)
    if champion is None:
        raise NoChampion(
            f"model '{model_name()}' has no champion: run the training pipeline until a candidate "
            "passes the gates"
        )
    return champion


def registered() -> list[ModelVersion]:
    """Return all versions, the newest first."""
    found = client().search_model_versions(f"name = '{model_name()}'")
    return sorted(found, key=lambda version: -int(version.version))


def find(fingerprint: str) -> ModelVersion | None:
    """Return the newest version that was trained to the same end, see `CandidateRef`."""
    same = (one for one in registered() if one.tags.get(FINGERPRINT_TAG) == fingerprint)
    return next(same, None)


def register(candidate: CandidateRef, unusable: int | None = None) -> int:
    """Return the registry version of a candidate, registered unless an equal one already is.

    Args:
        candidate: What to register.
        unusable: A version that counts as none, since it cannot be used any more.
    """
    from mlflow.exceptions import MlflowException

    name = model_name()
    with _one_at_a_time():
        known = find(candidate.fingerprint)
        if known and int(known.version) != unusable:
            return int(known.version)
        try:
            client().create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        created = client().create_model_version(
            name,
            candidate.model_uri,
            run_id=candidate.tracking_run_id,
            model_id=candidate.model_uri.removeprefix("models:/"),
            tags={
                FINGERPRINT_TAG: candidate.fingerprint,
                "candidate": candidate.candidate,
                "trained_until": f"{candidate.trained_until}",
                "reference_uri": candidate.reference_uri,
                FEATURES_TAG: candidate.features_fingerprint,
                DIGEST_TAG: candidate.digest,
            },
        )
    return int(created.version)


def succession_of(version: ModelVersion) -> Succession | None:
    """Return how a version became champion, None if that was not noted."""
    text = version.tags.get(SUCCESSION_TAG)
    return Succession.model_validate_json(text) if text else None


def versions() -> tuple[int | None, int | None]:
    """Return the versions of the champion and of the one before it, None where there is none."""
    champion = version_of(CHAMPION)
    if champion is None:
        return None, None
    if succession := succession_of(champion):
        return int(champion.version), succession.replaces
    # Older code has left the alias alone.
    previous = version_of(PREVIOUS)
    return int(champion.version), int(previous.version) if previous else None


def succeed(version: int, champion: int | None, run: str) -> bool:
    """Make a version, which was compared with a champion, its successor.

    A repeated call changes nothing.

    Args:
        version: The new champion.
        champion: What it was evaluated against; None where there was none.
        run: Key of the run whose gates it passed.

    Returns:
        True if it was not champion already.

    Raises:
        ChampionMoved: The champion has changed, or a person took the version back.
    """
    with _one_at_a_time():
        present, _ = versions()
        if present == version:
            _point_previous()
            return False
        if present != champion or is_withdrawn(version):
            raise ChampionMoved(
                f"version {version} was compared with version {champion or 'none'}, and the "
                f"champion is version {present or 'none'} by now: train again"
            )
        _move(version, present, "gates", run)
    # Where no lock reaches, on a server, another machine may have moved it at the same time.
    if versions()[0] != version:
        raise ChampionMoved(f"version {version} became champion, and another one at once after it")
    return True


def promote(version: int) -> int | None:
    """Make a version the champion because a person wants it; returns the former one.

    Where that is a newer version, it is taken back: no run makes it champion again.

    Raises:
        BadInput: There is no such version.
    """
    known = {int(one.version) for one in registered()}
    if version not in known:
        there = ", ".join(map(str, sorted(known))) or "none"
        raise BadInput(f"model '{model_name()}' has no version {version}; there are: {there}")
    with _one_at_a_time():
        champion, previous = versions()
        if champion == version:
            return previous
        if champion is not None and champion > version:
            withdraw(champion)
        _move(version, champion, "person")
    return champion


def rollback() -> tuple[int, int]:
    """Put the previous champion back; the present one becomes `previous`.

    No run makes the present one champion again; another rollback, or `promote`, does.

    Returns:
        The version that is champion now, and the one that was.

    Raises:
        NoChampion: There is no champion, or no previous one.
    """
    with _one_at_a_time():
        champion, previous = int(require_champion().version), versions()[1]
        if previous is None or previous not in {int(one.version) for one in registered()}:
            raise NoChampion(f"model '{model_name()}' has no previous champion to put back")
        withdraw(champion)
        _move(previous, champion, "rollback")
    return previous, champion


def retire() -> None:
    """Remove the aliases, since the prediction target has changed; the versions stay."""
    with _one_at_a_time():
        for alias in (CHAMPION, PREVIOUS):
            if version_of(alias):
                client().delete_registered_model_alias(model_name(), alias)


def withdraw(version: int) -> None:
    """Note that a person took a version back: no run makes it champion again."""
    now = datetime.now(UTC).isoformat(timespec="minutes")
    client().set_model_version_tag(model_name(), str(version), WITHDRAWN_TAG, now)


def is_withdrawn(version: int) -> bool:
    """Return whether a person took a version back."""
    return WITHDRAWN_TAG in client().get_model_version(model_name(), str(version)).tags


def unannounced() -> ModelVersion | None:
    """Return the champion if it passed a run's gates and was not announced yet."""
    champion = version_of(CHAMPION)
    succession = succession_of(champion) if champion else None
    if champion is None or succession is None or succession.why != "gates":
        return None
    told = champion.tags.get(ANNOUNCED_TAG) == succession.at.isoformat()
    return None if told else champion


def set_announced(champion: ModelVersion) -> None:
    """Note that a champion was announced to the team."""
    if succession := succession_of(champion):
        at = succession.at.isoformat()
        client().set_model_version_tag(champion.name, champion.version, ANNOUNCED_TAG, at)


def digest_of(folder: Path) -> str:
    """Return the SHA-256 of a folder's model: other bytes may load and predict differently."""
    with (folder / "model.pkl").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(uri: str) -> Path:
    """Return the folder of a model in MLflow, by run or by registry address."""
    import mlflow.artifacts

    client()
    return Path(mlflow.artifacts.download_artifacts(uri))


def load_model(uri: str) -> Any:
    """Load a scikit-learn model from MLflow, by run or by registry address."""
    import mlflow.sklearn

    client()
    return mlflow.sklearn.load_model(uri)


def _move(
    version: int,
    champion: int | None,
    why: Literal["gates", "rollback", "person"],
    run: str | None = None,
) -> None:
    """Move the alias; a process that is killed between two steps leaves what `rollback` needs."""
    name, number = model_name(), str(version)
    succession = Succession(replaces=champion, at=datetime.now(UTC), why=why, run=run)
    client().set_model_version_tag(name, number, SUCCESSION_TAG, succession.model_dump_json())
    client().set_registered_model_alias(name, CHAMPION, number)
    if is_withdrawn(version):
        client().delete_model_version_tag(name, number, WITHDRAWN_TAG)
    _point_previous()


def _point_previous() -> None:
    """Let `previous` follow the champion."""
    _, previous = versions()
    if previous is not None:
        client().set_registered_model_alias(model_name(), PREVIOUS, str(previous))
    elif version_of(PREVIOUS):
        client().delete_registered_model_alias(model_name(), PREVIOUS)


def _one_at_a_time() -> AbstractContextManager[object]:
    """Let one process at a time look at the aliases of a local store and move them."""
    file = store_file()
    if file is None:
        return nullcontext()
    client()
    return FileLock(f"{file}.aliases.lock")
