"""Keeps secrets out of what leaves the project: alerts, logs of their delivery, doctor's lines."""

from __future__ import annotations

import contextlib
import os
import re

from .errors import SettingsError
from .settings import load_environment

_SECRET_NAME = re.compile(r"(PASSWORD|SECRET|TOKEN|KEY|WEBHOOK_URL)$", re.IGNORECASE)
_PASSWORD_IN_ADDRESS = re.compile(r"(://[^\s:/@]*):[^\s/@]+@")
# Shorter values would blank out ordinary words.
_SHORTEST = 4


def redact_error(error: BaseException) -> None:
    """Take the secrets out of what an exception, and what led to it, say."""
    known: list[BaseException] = []
    while error not in known:
        known.append(error)
        error.args = tuple(redact(part) if isinstance(part, str) else part for part in error.args)
        error = error.__cause__ or error.__context__ or error


def redact(text: str) -> str:
    """Return the text with secrets replaced by `***`, and in valid Unicode.

    Secrets are the values of variables, in the environment or .env, whose name ends in PASSWORD,
    SECRET, TOKEN, KEY or WEBHOOK_URL, and passwords inside addresses.
    """
    with contextlib.suppress(SettingsError):
        load_environment()
    text = text.encode("utf-8", "replace").decode()
    secrets = {value for name, value in os.environ.items() if _SECRET_NAME.search(name)}
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, "***")
    return _PASSWORD_IN_ADDRESS.sub(r"\1:***@", text)
