"""Keeps secrets, control characters and endless texts out of what leaves the project."""

from __future__ import annotations

import contextlib
import os
import re

from .errors import SettingsError
from .plain import plain
from .settings import load_environment, without_passwords

_SECRET_NAME = re.compile(r"(PASSWORD|SECRET|TOKEN|KEY|WEBHOOK_URL)$", re.IGNORECASE)
# Shorter values would blank out ordinary words.
_SHORTEST = 4


def redact_error(error: BaseException) -> None:
    """Make the messages of an exception and its causes safe to show, see `presentable`."""
    known: list[BaseException] = []
    while error not in known:
        known.append(error)
        error.args = tuple(
            presentable(part) if isinstance(part, str) else part for part in error.args
        )
        if isinstance(error, OSError) and isinstance(error.strerror, str):
            # `OSError` prints this attribute, whatever its arguments are.
            error.strerror = presentable(error.strerror)
        error = error.__cause__ or error.__context__ or error


def presentable(text: str) -> str:
    """Return the text without secrets, with control characters as escapes, and not too long."""
    # In this order: half a secret would not be recognized.
    return plain(redact(text))


def redact(text: str) -> str:
    """Return the text with secrets replaced by `***`.

    Secrets are the values of variables, in the environment or .env, whose name ends in PASSWORD,
    SECRET, TOKEN, KEY or WEBHOOK_URL, and passwords inside addresses.
    """
    with contextlib.suppress(SettingsError):
        load_environment()
    secrets = {value for name, value in os.environ.items() if _SECRET_NAME.search(name)}
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, "***")
    return without_passwords(text)
