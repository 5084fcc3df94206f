"""Settings of the service: SERVING_* variables of the environment or .env."""

from __future__ import annotations

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from ..core.errors import SettingsError
from ..core.settings import load_environment


class ServingSettings(BaseSettings):
    """All settings of the service.

    Attributes:
        host: Address to listen on; always 127.0.0.1 while there is no token.
        port: Port to listen on.
        token: What clients send as `Authorization: Bearer …` to ask for predictions.
        refresh_seconds: How often the registry is asked for its champion.
        timeout_seconds: How long a request may take, from its first byte to its answer.
        max_bytes: Largest body of a request.
        max_rows: Most rows of a request.
        threads: How many requests are checked and predicted at once; the others wait.
    """

    model_config = SettingsConfigDict(env_prefix="SERVING_", env_ignore_empty=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    token: SecretStr = SecretStr("")
    refresh_seconds: float = Field(default=10, gt=0)
    timeout_seconds: float = Field(default=30, gt=0)
    max_bytes: int = Field(default=5_000_000, ge=1)
    max_rows: int = Field(default=10_000, ge=1)
    threads: int = Field(default=1, ge=1)


def load_serving_settings() -> ServingSettings:
    """Read the settings of the service.

    Raises:
        SettingsError: Names every bad value at once, with what was expected.
    """
    load_environment()
    try:
        return ServingSettings()
    except ValidationError as error:
        lines = [
            f"SERVING_{'_'.join(str(part) for part in detail['loc']).upper()}: {detail['msg']}"
            for detail in error.errors()
        ]
        raise SettingsError("bad SERVING_* variables:\n  " + "\n  ".join(lines)) from None
