"""Settings: config/pipeline.toml, overridden by .env and PIPELINE_* environment variables.

`PIPELINE_TRAINING__TRIALS=50` overrides `trials` in the section `[training]`.
"""

from __future__ import annotations

import functools
from datetime import date, timedelta
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from .answers import DISTRIBUTED
from .errors import SettingsError
from .paths import config_file, project_root

Share = Annotated[float, Field(ge=0, le=1)]
Days = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Project(_Section):
    """Who owns the pipeline and what it is called in logs, alerts and the tracking server."""

    name: str = "pipeline"
    slug: str = "pipeline"
    owner: str = "ml-team"


class Data(_Section):
    """Where the partitions are: a folder or any fsspec address, one file per day.

    Attributes:
        storage_options: What fsspec's file system is made with, like key, secret and endpoint_url,
            where it is not the one that artefacts go to. Best set in the environment.
    """

    source: str = "data/sample"
    file: str = "{partition}.parquet"
    storage_options: dict[str, SecretStr] = {}

    @field_validator("file")
    @classmethod
    def _file_names_the_partition(cls, value: str) -> str:
        if "{partition}" not in value or not value.endswith((".parquet", ".csv")):
            raise ValueError("must contain {partition} and end in .parquet or .csv")
        return value


class Validation(_Section):
    """Limits beyond which a partition is rejected as a whole."""

    min_rows: int = Field(default=100, ge=0)
    max_invalid_share: Share = 0.05
    max_null_share: Share = 0.3
    max_shift_psi: float = Field(default=1.0, gt=0)


class Training(_Section):
    """The window of days a model learns from, and the search for its parameters."""

    window_days: Days = 21
    wider_window_days: Days = 28
    holdout_days: Days = 7
    candidates: Annotated[list[str], Field(min_length=1)] = ["linear", "random_forest", "xgboost"]
    trials: int = Field(default=5, ge=1)
    seed: int = 7
    threads: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _windows_leave_days_to_learn_from(self) -> Training:
        if self.window_days < self.holdout_days + 2:
            raise ValueError(
                f"window_days ({self.window_days}) must exceed holdout_days "
                f"({self.holdout_days}) by 2 or more"
            )
        if self.wider_window_days < self.window_days:
            raise ValueError(
                f"wider_window_days ({self.wider_window_days}) must not be below "
                f"window_days ({self.window_days})"
            )
        return self


class Gate(_Section):
    """Bounds of one metric; a model passes when it lies within them."""

    min: float | None = None
    max: float | None = None


class Gates(_Section):
    """What a challenger must reach on the holdout days before it becomes champion."""

    metrics: dict[str, Gate] = {}
    min_improvement: float = 0.0


class Monitoring(_Section):
    """When features count as drifted, and when drift asks for a new model."""

    window_days: Days = 7
    max_psi: float = Field(default=0.1, gt=0)
    max_drifted_share: Share = 0.0


class Schedule(_Section):
    """When the engine starts the pipelines: cron expressions; empty means by hand only."""

    training: str = ""
    inference: str = ""
    start_date: date = date(2013, 1, 1)
    catchup: bool = False


class Limits(_Section):
    """Retries and time limits of every stage."""

    retries: int = Field(default=2, ge=0)
    retry_delay_seconds: int = Field(default=30, ge=0)
    stage_timeout_minutes: float = Field(default=30, gt=0)
    wait_timeout_minutes: float = Field(default=720, gt=0)
    wait_interval_seconds: float = Field(default=60, gt=0)


class Storage(_Section):
    """Where stages write: a folder, or s3:// and the like when workers share no disk."""

    root: str = "var/artifacts"


class Workers(_Section):
    """Whether steps run on many machines, which then must share artefacts and MLflow."""

    distributed: bool = DISTRIBUTED


class Logging(_Section):
    """How log lines look."""

    level: str = "INFO"
    json_lines: bool = False


class _Environment(EnvSettingsSource):
    """Variables; what is unknown or unreadable is passed on, for the checks to report by name."""

    def __call__(self) -> dict[str, Any]:
        values = super().__call__()
        prefix = self.env_prefix.lower()
        for name, value in self.env_vars.items():
            section, nested, _ = name.removeprefix(prefix).partition("__")
            if name.startswith(prefix) and nested:
                values.setdefault(section, value)
        return values

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


class Settings(BaseSettings):
    """All settings of a project; every field has a default, so an older file stays valid."""

    model_config = SettingsConfigDict(
        extra="forbid", env_prefix="PIPELINE_", env_nested_delimiter="__"
    )

    project: Project = Project()
    data: Data = Data()
    validation: Validation = Validation()
    training: Training = Training()
    gates: Gates = Gates()
    monitoring: Monitoring = Monitoring()
    schedule: Schedule = Schedule()
    limits: Limits = Limits()
    storage: Storage = Storage()
    workers: Workers = Workers()
    logging: Logging = Logging()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the environment (with .env loaded into it) over the file."""
        toml = TomlConfigSettingsSource(settings_cls, config_file(project_root()))
        return init_settings, _Environment(settings_cls), toml

    def window(self, partition: date, days: int) -> list[date]:
        """Return the `days` days up to and including `partition`, oldest first."""
        return [partition - timedelta(days=back) for back in reversed(range(days))]


def load_environment() -> None:
    """Load .env of the project into the environment; variables that are set already win."""
    from dotenv import load_dotenv

    load_dotenv(project_root() / ".env")


@functools.cache
def load_settings() -> Settings:
    """Read the settings once a process.

    Raises:
        SettingsError: Names every bad value at once, with what was expected.
    """
    load_environment()
    try:
        return Settings()
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, detail['loc']))}: {detail['msg']} (got {_shown(detail)})"
            for detail in error.errors()
        ]
        raise SettingsError(
            "bad settings in config/pipeline.toml or PIPELINE_* variables:\n  " + "\n  ".join(lines)
        ) from None
    except ValueError as error:
        raise SettingsError(f"config/pipeline.toml is not readable as TOML: {error}") from None


def _shown(detail: ErrorDetails) -> str:
    # What storage is opened with may be keys.
    if "storage_options" in f"{detail['loc']} {detail['input']}":
        return "***"
    return f"{detail['input']!r:.80}"
