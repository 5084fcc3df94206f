"""What workers on many machines need: an artefact store and an MLflow that all of them reach."""

from __future__ import annotations

from . import tracking
from .errors import SettingsError
from .settings import load_settings


def require_shared_state() -> None:
    """Check that distributed workers share what they write.

    Raises:
        SettingsError: The artefacts or MLflow's runs would go to one machine's disk, or the
            project's MLflow server is not named.
    """
    settings = load_settings()
    uri = tracking.tracking_uri()
    if not settings.workers.distributed:
        return
    errors = []
    root = settings.storage.root
    if "://" not in root or root.startswith(("file:", "local:")):
        errors.append(
            f"[storage] root is '{root}', a folder of one machine: set it to object storage, like "
            "PIPELINE_STORAGE__ROOT=s3://bucket/artifacts"
        )
    if not uri.startswith("http"):
        errors.append(
            f"MLflow is '{uri}', a file of one machine: set MLFLOW_TRACKING_URI to a server"
        )
    if errors:
        raise SettingsError(
            "distributed workers share no disk:\n  "
            + "\n  ".join(errors)
            + "\nTo run on this machine only: PIPELINE_WORKERS__DISTRIBUTED=false"
        )
