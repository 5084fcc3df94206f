"""The seam to MLflow's model registry: the champion, the one before it, and how to change them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import NoChampion
from .refs import CandidateRef
from .settings import load_settings
from .tracking import client

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
PREVIOUS = "previous"
FINGERPRINT_TAG = "fingerprint"


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


def register(candidate: CandidateRef) -> int:
    """Return the registry version of a candidate, registered unless an equal one already is."""
    from mlflow.exceptions import MlflowException

    name = model_name()
    known = client().search_model_versions(f"name = '{name}'")
    for version in known:
        if version.tags.get(FINGERPRINT_TAG) == candidate.fingerprint:
            return int(version.version)
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
        },
    )
    return int(created.version)


def versions() -> tuple[int | None, int | None]:
    """Return the versions of the champion and of the one before it, None where there is none."""
    champion, previous = (version_of(alias) for alias in (CHAMPION, PREVIOUS))
    return int(champion.version) if champion else None, int(previous.version) if previous else None


def promote(version: int) -> int | None:
    """Make a version the champion, keep the former one as `previous`, and return the former one.

    Doing it again changes nothing.
    """
    champion, previous = versions()
    if champion == version:
        return previous
    if champion is not None:
        client().set_registered_model_alias(model_name(), PREVIOUS, str(champion))
    client().set_registered_model_alias(model_name(), CHAMPION, str(version))
    return champion


def rollback() -> tuple[int, int]:
    """Put the previous champion back; the present one becomes `previous`.

    Returns:
        The version that is champion now, and the one that was.

    Raises:
        NoChampion: There is no champion, or no previous one.
    """
    champion, previous = require_champion(), version_of(PREVIOUS)
    if previous is None:
        raise NoChampion(f"model '{model_name()}' has no previous champion to put back")
    promote(int(previous.version))
    return int(previous.version), int(champion.version)


def load_model(uri: str) -> Any:
    """Load a scikit-learn model from MLflow, by run or by registry address."""
    import mlflow.sklearn

    client()
    return mlflow.sklearn.load_model(uri)
