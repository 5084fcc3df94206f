"""Logging: one line per event, with the pipeline, partition and stage it belongs to.

Texts are sanitized, see `plain`: a value in the data cannot forge a line or fill a disk.
"""

from __future__ import annotations

import functools
import json
import logging
import sys
from collections.abc import MutableMapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .plain import plain

if TYPE_CHECKING:
    from rich.console import Console

LONGEST_TRACEBACK = 30_000

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
    logger = logging.getLogger(name)
    # Attached here, since handlers belong to the engine.
    logger.addFilter(make_plain)
    return StageLogger(logger, {})


def make_plain(record: logging.LogRecord) -> bool:
    """Complete a record's message and make it one plain line; a filter that keeps all records."""
    try:
        message = record.getMessage()
        event = getattr(record, "event", None)
        if event is not None:
            event = str(event) % record.args if record.args else str(event)
            record.event = plain(event, one_line=True)
    except Exception:
        # A library's mistake; the standard library would print a traceback between the lines.
        message = f"{record.msg} {record.args}"
    record.msg, record.args = plain(message, one_line=True), ()
    return True


class PlainFormatter(logging.Formatter):
    """Shows tracebacks as `plain` texts."""

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Return the traceback."""
        return plain(super().formatException(ei), limit=LONGEST_TRACEBACK)


class JsonFormatter(PlainFormatter):
    """One JSON object per line: time, level, logger, message and the stage's context."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            **getattr(record, "context", {}),
            "message": getattr(record, "event", None) or record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def setup_logging(level: str, *, json_lines: bool = False) -> None:
    """Configure logging to standard error for the command line; an engine configures its own."""
    handler: logging.Handler = logging.StreamHandler()
    if json_lines:
        handler.setFormatter(JsonFormatter())
        logging.captureWarnings(True)
    elif sys.stderr.isatty():
        from rich.logging import RichHandler

        handler = RichHandler(console=console(), show_path=False, omit_repeated_times=False)
        handler.setFormatter(PlainFormatter("%(message)s"))
    else:
        handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)-7s %(message)s"))
    handler.addFilter(make_plain)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("alembic", "httpx", "matplotlib", "mlflow", "optuna", "urllib3"):
        logging.getLogger(noisy).setLevel("ERROR")


def logs_json() -> bool:
    """Return whether the command line logs one JSON object per line."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.root.handlers)


@functools.cache
def console() -> Console:
    """Return the console for progress and log lines, shared so that they do not overlap."""
    from rich.console import Console

    return Console(stderr=True)
