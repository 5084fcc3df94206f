"""Where Dagster's UI is."""

import os

from ..core.settings import load_environment


def address() -> str:
    """Return where Dagster's UI is."""
    load_environment()
    port = os.environ.get("DAGSTER_PORT", "3000")
    return os.environ.get("DAGSTER_URL", f"http://127.0.0.1:{port}").rstrip("/")


def run_address(run_id: str, step: str | None = None) -> str:
    """Return the UI's page of a run, on the log of a step where one is named."""
    page = f"{address()}/runs/{run_id}"
    return f"{page}?logs=step%3A{step}" if step else page
