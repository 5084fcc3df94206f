"""Logging: one line an event, with the pipeline, partition and stage it belongs to."""

from __future__ import annotations

import functools
import json
import logging
import sys
from collections.abc import MutableMapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

CONTEXT: ContextVar[dict[str, str] | None] = ContextVar("log_context", default=None)


class StageLogger(logging.LoggerAdapter[logging.Logger]):
    """Puts the running stage in front of each message, so that every engine's log shows it."""

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the context to a message, and to its record for the JSON formatter."""
        context = CONTEXT.get() or {}
        kwargs["extra"] = {"context": context, "event": msg}
        prefix = " ".join(context.values())
        return (f"[{prefix}] {msg}" if prefix else msg), kwargs


def get_logger(name: str) -> StageLogger:
    """Return the logger of a module; use it like the standard library's."""
    return StageLogger(logging.getLogger(name), {})


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message and the stage's context."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            **getattr(record, "context", {}),
            "message": record.getMessage(),
        }
        if hasattr(record, "event"):
            line["message"] = str(record.event) % record.args if record.args else record.event
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def setup_logging(level: str, *, json_lines: bool = False) -> None:
    """Configure logging to standard error for the command line; an engine configures its own."""
    handler: logging.Handler = logging.StreamHandler()
    if json_lines:
        handler.setFormatter(JsonFormatter())
    elif sys.stderr.isatty():
        from rich.logging import RichHandler

        handler = RichHandler(console=console(), show_path=False, omit_repeated_times=False)
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("alembic", "httpx", "matplotlib", "mlflow", "optuna", "urllib3"):
        logging.getLogger(noisy).setLevel("ERROR")


@functools.cache
def console() -> Console:
    """Return the console for progress and log lines, shared so that they do not overlap."""
    from rich.console import Console

    return Console(stderr=True)
