"""Steps on Celery's workers, which `uv run poe worker` starts on each machine."""

from typing import Any

import dagster as dg
import dagster_celery

BROKER = "DAGSTER_CELERY_BROKER_URL"
BACKEND = "DAGSTER_CELERY_BACKEND_URL"
# What every worker must share with the machine of the webserver and daemon.
REQUIRED = (BROKER, BACKEND, "DAGSTER_POSTGRES_URL")
CELERY: dict[str, Any] = {"broker": {"env": BROKER}, "backend": {"env": BACKEND}}


def executor() -> dg.ExecutorDefinition:
    """Return the executor that sends each step to the workers."""
    return dagster_celery.celery_executor.configured(CELERY)
