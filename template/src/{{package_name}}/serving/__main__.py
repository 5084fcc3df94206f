"""Start the service; SIGTERM ends it after the requests it has begun."""

from __future__ import annotations

import math
import os
import warnings

import uvicorn
from threadpoolctl import threadpool_limits

from ..core.errors import SettingsError
from ..core.logs import get_logger, setup_logging
from ..core.ports import require_free
from ..core.settings import load_settings
from .service import create_app
from .settings import ServingSettings, load_serving_settings

log = get_logger(__name__)

LOOPBACK = "127.0.0.1"
# Longer than proxies keep an idle connection, so that none is closed as they use it.
_KEEP_ALIVE_SECONDS = 75


def main() -> None:
    """Serve the champion until a signal ends the process.

    Raises:
        SystemExit: A setting has a bad value, or the port is taken.
    """
    try:
        logging, settings = load_settings().logging, load_serving_settings()
    except SettingsError as error:
        raise SystemExit(f"error: {error}") from None
    setup_logging(logging.level, json_lines=logging.json_lines)
    # A registry that is down is asked again soon enough; MLflow itself would try for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # Transformers are given arrays on purpose, see `fast_path`.
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    # Requests come side by side; a call's own threads would only wait for each other.
    threadpool_limits(1)
    host = host_of(settings)
    require_free(settings.port, "SERVING_PORT", host)
    uvicorn.run(
        create_app(settings),
        host=host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=math.ceil(settings.timeout_seconds) + 1,
    )


def host_of(settings: ServingSettings) -> str:
    """Return the address to listen on: without a token, this machine's own only."""
    if settings.token.get_secret_value():
        return settings.host
    log.warning("SERVING_TOKEN is not set: only this machine can connect, at %s", LOOPBACK)
    return LOOPBACK


if __name__ == "__main__":
    main()
