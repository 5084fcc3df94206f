"""This project's Dagster: its folder, and the dagster.yaml in it.

As a program it prepares a deployment, whose database it creates or upgrades:
`python -m <package>.orchestration.dagster.instance`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from ...core.settings import load_settings
from ..servers import base_environment, one_at_a_time

PACKAGE = __name__.partition(".")[0]


def configure_environment() -> None:
    """Point Dagster at this project, unless the environment already says otherwise."""
    root = base_environment("DAGSTER_", "DAGSTER_HOME")
    home = Path(os.environ.setdefault("DAGSTER_HOME", str(root / "var" / "dagster")))
    os.environ.setdefault("DAGSTER_PORT", "3000")
    home.mkdir(parents=True, exist_ok=True)
    # JSON is YAML. Untouched where nothing changed: other processes may be reading it.
    text = json.dumps(configuration(), indent=2) + "\n"
    file = home / "dagster.yaml"
    if not file.exists() or file.read_text() != text:
        file.write_text(text)


def configuration() -> dict[str, object]:
    """Return the content of dagster.yaml."""
    settings = load_settings()
    one_at_a_time = {"key": "pipeline", "value": {"applyLimitPerUniqueValue": True}, "limit": 1}
    written: dict[str, object] = {
        "telemetry": {"enabled": False},
        "nux": {"enabled": False},
        # The pipeline's own log lines are shown with the run.
        "python_logs": {
            "managed_python_loggers": [PACKAGE],
            "python_log_level": settings.logging.level.upper(),
        },
        "concurrency": {
            "runs": {"max_concurrent_runs": 4, "tag_concurrency_limits": [one_at_a_time]}
        },
        # A run whose process is gone is tried again as a whole; a failed step tries itself again.
        "run_monitoring": {"enabled": True, "poll_interval_seconds": 10},
        "run_retries": {
            "enabled": True,
            "max_retries": settings.limits.retries,
            "retry_on_asset_or_op_failure": False,
        },
    }
    if "DAGSTER_POSTGRES_URL" in os.environ:
        written["storage"] = {"postgres": {"postgres_url": {"env": "DAGSTER_POSTGRES_URL"}}}
    return written


def make_storage() -> None:
    """Have Dagster make its tables where there are none; one process does, others wait for it.

    Raises:
        SystemExit: The database does not answer.
    """
    import dagster as dg
    from sqlalchemy import create_engine
    from sqlalchemy.exc import OperationalError

    if url := os.environ.get("DAGSTER_POSTGRES_URL"):
        try:
            create_engine(url).connect().close()
        except OperationalError as error:
            raise SystemExit(
                "error: Dagster's database does not answer: start it, or correct "
                f"DAGSTER_POSTGRES_URL in .env ({error.orig})"
            ) from None
    with one_at_a_time(), dg.DagsterInstance.get():
        pass


if __name__ == "__main__":
    configure_environment()
    os.execvp("dagster", ["dagster", "instance", "migrate"])
