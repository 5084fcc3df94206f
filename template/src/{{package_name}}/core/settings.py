"""Settings: config/pipeline.toml, overridden by .env and PIPELINE_* environment variables.

`PIPELINE_TRAINING__TRIALS=50` overrides `trials` in the section `[training]`.
"""

from __future__ import annotations

import codecs
import functools
import logging
import os
import re
from datetime import date, datetime, time
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from .answers import DISTRIBUTED
from .cadence import Cadence, Unit, Weekday
from .errors import SettingsError
from .paths import config_file, project_root

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Split = Literal["time", "random", "group", "time_and_group"]
# How a file's name may end; the later ones are compressed.
SUFFIXES = tuple(
    f"{kind}{packed}"
    for packed in ("", ".gz", ".zst")
    for kind in (".parquet", ".csv", ".jsonl", ".ndjson")
)

_PASSWORD = re.compile(r"(://[^\s:/@]*):[^\s@]+@")


def without_passwords(text: str) -> str:
    """Return a text with `***` for the passwords inside its addresses."""
    return _PASSWORD.sub(r"\1:***@", text)


def known_zone(name: str) -> str:
    """Return the name of a time zone; raises ValueError where there is none of that name."""
    try:
        return ZoneInfo(name).key
    except (KeyError, ValueError, OSError):
        raise ValueError("must be a time zone like Europe/Berlin") from None


class _Section(BaseModel):
    # A bound of NaN or infinity would pass everything, or nothing.
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Project(_Section):
    """Who owns the pipeline and what it is called in logs, alerts and the tracking server."""

    name: str = "pipeline"
    slug: str = Field(default="pipeline", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    owner: str = Field(default="ml-team", min_length=1)


class Csv(_Section):
    """How a CSV is written, if not as most programs write it.

    Attributes:
        null_values: What stands for a value that is not there, in any column.
        date_format: Of dates and times, as in strptime; what does not match is read as usual.
    """

    separator: Annotated[str, Field(min_length=1, max_length=1)] = ","
    decimal_comma: bool = False
    encoding: str = "utf8"
    null_values: list[str] = [""]
    date_format: Annotated[str, Field(pattern=r"^$|%")] = ""

    @field_validator("encoding")
    @classmethod
    def _encoding_exists(cls, value: str) -> str:
        try:
            codecs.lookup(value)
        except LookupError:
            raise ValueError("must be an encoding that Python knows, like latin-1") from None
        return value


class Reference(_Section):
    """A further table, like customers by number to make features with, or labels.

    Attributes:
        kind: `file`: one file; `sql`: what a query gives; `delta`: a Delta table.
        source: A path in the project, or any fsspec address; for `sql` an address of SQLAlchemy's,
            best set in the environment.
        query: For `sql`: gives the rows.
        storage_options: Like those of `[data]`; without any, these count on a file system of the
            same kind.
    """

    kind: Literal["file", "sql", "delta"] = "file"
    source: str
    query: str = ""
    storage_options: dict[str, SecretStr] = {}

    @property
    def address(self) -> str:
        """The source as messages may name it: without a password."""
        return without_passwords(self.source)

    @model_validator(mode="after")
    def _query_is_of_a_database(self) -> Reference:
        if (self.kind == "sql") != bool(self.query.strip()):
            raise ValueError('kind = "sql" needs a query, and only that kind has one')
        if self.kind == "sql" and self.storage_options:
            raise ValueError('storage_options are not for kind = "sql"')
        return self


class Data(_Section):
    """Where the data is, and how it is cut into partitions.

    Attributes:
        kind: `files`: one or more per partition; `table`: one file or folder with a time column;
            `sql`: a query; `delta`: a Delta table; `python`: functions in domain/source.py.
        source: A folder, or for a table also a file; any fsspec address. For `sql` an address of
            SQLAlchemy's, best set in the environment: PIPELINE_DATA__SOURCE.
        unit: `cadence` in the file: what a partition spans; none for a table without time.
        file: How the files of a partition are named; folders and `*` are fine.
        marker: A file that says that a partition is complete, like {partition}.done, or _SUCCESS
            beside its files. Without one, they must have stopped growing.
        settle_seconds: Time between two looks at new files; 0 takes them as they are.
        query: For `sql`: gives the rows from `:start` up to `:end`, the partition's bounds.
        time_zone: Where days, weeks and months begin, and what times without a zone mean.
        storage_options: What fsspec's file system is made with, like key, secret and endpoint_url,
            where it is not the one that artefacts go to. Best set in the environment.
        reference: Further tables, by name.
        labels: Where labels are that do not come with the rows: KEY and LABEL of domain/schema.py.
    """

    kind: Literal["files", "table", "sql", "delta", "python"] = "files"
    source: str = "data/sample"
    unit: Unit = Field(default="day", alias="cadence")
    file: str = "{partition}.parquet"
    marker: str = ""
    settle_seconds: float = Field(default=2, ge=0)
    query: str = ""
    time_zone: str = "UTC"
    week_start: Weekday = "monday"
    storage_options: dict[str, SecretStr] = {}
    csv: Csv = Csv()
    reference: dict[str, Reference] = {}
    labels: Reference | None = None

    @property
    def address(self) -> str:
        """The source as messages may name it: without a password."""
        return without_passwords(self.source)

    @property
    def marker_file(self) -> str:
        """How the marker of a partition is called, below the source; empty without one."""
        folder = self.file.rpartition("/")[0]
        beside = self.marker and folder and "{partition}" not in self.marker
        return f"{folder}/{self.marker}" if beside else self.marker

    @property
    def cadence(self) -> Cadence:
        """How the table is cut into partitions."""
        return Cadence(self.unit, self.time_zone, self.week_start)

    @field_validator("file")
    @classmethod
    def _file_names_the_partition(cls, value: str, info: ValidationInfo) -> str:
        if not value.endswith(SUFFIXES):
            raise ValueError(f"must end in one of {', '.join(SUFFIXES)}")
        if info.data.get("unit") != "none" and "{partition}" not in value:
            raise ValueError('must contain {partition}, unless cadence is "none"')
        return value

    @model_validator(mode="after")
    def _marker_is_of_one_partition(self) -> Data:
        if not self.marker:
            return self
        if self.kind != "files":
            raise ValueError(f'marker is for kind = "files", not for "{self.kind}"')
        if self.unit != "none" and "{partition}" not in self.marker_file:
            raise ValueError(
                "marker must contain {partition}, unless each partition has a folder in file"
            )
        return self

    @model_validator(mode="after")
    def _storage_is_of_files(self) -> Data:
        if self.storage_options and self.kind in ("sql", "python"):
            raise ValueError(
                f'storage_options are not for kind = "{self.kind}": move them to [data.labels] or '
                "[data.reference.NAME], or leave them out"
            )
        return self

    @field_validator("query")
    @classmethod
    def _query_is_bounded(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("kind") != "sql" or info.data.get("unit") == "none":
            return value
        if lacking := [name for name in (":start", ":end") if name not in value]:
            raise ValueError(f"must take the rows of a partition: no {' or '.join(lacking)} in it")
        return value

    @field_validator("time_zone")
    @classmethod
    def _time_zone_exists(cls, value: str) -> str:
        return known_zone(value)


class Validation(_Section):
    """Limits beyond which a partition is rejected as a whole.

    Attributes:
        min_rows_share: Share of the earlier partitions' median that the run's own must have.
        few_rows: What fewer do: `warn` reports it in log, table and report; `reject` stops.
        max_rows: A partition's rows; checked before they are read, like the following.
        max_megabytes: What a partition takes in memory, unpacked.
        max_line_megabytes: A line of a CSV or of JSON lines.
    """

    min_rows: int = Field(default=100, ge=0)
    min_rows_share: Share = 0.5
    few_rows: Literal["warn", "reject"] = "warn"
    max_invalid_share: Share = 0.05
    max_null_share: Share = 0.3
    max_shift_psi: float = Field(default=1.0, gt=0)
    max_rows: Count = 50_000_000
    max_megabytes: float = Field(default=4_000, gt=0)
    max_line_megabytes: float = Field(default=10, gt=0)


class Training(_Section):
    """The window of partitions a model learns from, and the search for its parameters.

    Attributes:
        split: How rows are held out from learning; see `Settings.split` for the default.
        holdout: The newest partitions of the window, held out by a split by time.
        gap: Partitions before those that are not used at all.
        holdout_share: The rows that a random split, or one by group, holds out.
        min_labelled_share: Partitions with a target in fewer of their rows are left out until
            their labels are in. At 0 each needs its labels, like any other column.
        min_partitions_share: Of the window, that must be there and good. At 1 each must be.
    """

    window: Count = 21
    wider_window: Count = 28
    split: Split | None = None
    holdout: Count = 7
    gap: int = Field(default=0, ge=0)
    holdout_share: float = Field(default=0.2, gt=0, lt=1)
    min_labelled_share: Share = 0.0
    min_partitions_share: Share = 0.5
    candidates: Annotated[list[str], Field(min_length=1)] = ["linear", "random_forest", "xgboost"]
    trials: int = Field(default=5, ge=1)
    seed: int = 7
    threads: int = Field(default=1, ge=1)

    @field_validator("candidates")
    @classmethod
    def _candidates_differ(cls, value: list[str]) -> list[str]:
        if twice := sorted({name for name in value if value.count(name) > 1}):
            raise ValueError(f"must name each candidate once, not {', '.join(twice)} again")
        return value

    @model_validator(mode="after")
    def _wider_window_is_no_smaller(self) -> Training:
        if self.wider_window < self.window:
            raise ValueError(
                f"wider_window ({self.wider_window}) must not be below window ({self.window})"
            )
        return self


class Gate(_Section):
    """Bounds of one metric; a model passes when its value is within them."""

    min: float | None = None
    max: float | None = None


class Gates(_Section):
    """What a challenger must reach on held-out rows before it becomes champion."""

    metrics: dict[str, Gate] = {}
    min_improvement: float = 0.0
    min_above_baseline: float | None = None


class Monitoring(_Section):
    """When features count as drifted, and when drift asks for a new model."""

    window: Count = 7
    max_psi: float = Field(default=0.1, gt=0)
    max_drifted_share: Share = 0.0


class Schedule(_Section):
    """When the engine starts the pipelines: cron expressions; empty means by hand only.

    Attributes:
        time_zone: Of the cron expressions.
        start_date: Date of the first partition that an engine knows, or catches up with.
        end_date: The schedule's last day; refused, like a future start, by engines without an end.
        catchup: Whether missed runs follow; refused by engines that start none late.
    """

    training: str = ""
    inference: str = ""
    time_zone: str = "UTC"
    start_date: date = date(2020, 1, 1)
    end_date: date | None = None
    catchup: bool = False

    @property
    def begins(self) -> datetime:
        """The first moment of `start_date`."""
        return datetime.combine(self.start_date, time.min, ZoneInfo(self.time_zone))

    @property
    def ends(self) -> datetime | None:
        """The last moment of `end_date`."""
        if self.end_date is None:
            return None
        return datetime.combine(self.end_date, time.max, ZoneInfo(self.time_zone))

    @field_validator("end_date")
    @classmethod
    def _end_follows_start(cls, value: date | None, info: ValidationInfo) -> date | None:
        if value and "start_date" in info.data and value < info.data["start_date"]:
            raise ValueError(f"must not lie before start_date ({info.data['start_date']})")
        return value

    @field_validator("training", "inference")
    @classmethod
    def _cron_has_five_fields(cls, value: str) -> str:
        if value and len(value.split()) != 5:
            raise ValueError('must be a cron expression of five fields, like "0 6 * * 1"')
        return value

    @field_validator("time_zone")
    @classmethod
    def _time_zone_exists(cls, value: str) -> str:
        return known_zone(value)


class Limits(_Section):
    """Retries and time limits of every stage."""

    retries: int = Field(default=2, ge=0)
    retry_delay_seconds: int = Field(default=30, ge=0)
    stage_timeout_minutes: float = Field(default=30, gt=0)
    wait_timeout_minutes: float = Field(default=720, gt=0)
    wait_interval_seconds: float = Field(default=60, gt=0)


class Storage(_Section):
    """Where stages write, and how long files are kept.

    Attributes:
        root: A folder, or s3:// and the like when workers share no disk.
        keep_days: `prune` removes what is older, unless something needs it.
    """

    root: str = Field(default="var/artifacts", min_length=1)
    keep_days: int = Field(default=90, ge=0)


class Workers(_Section):
    """Whether steps run on many machines, which then must share artefacts and MLflow."""

    distributed: bool = DISTRIBUTED


class Logging(_Section):
    """Which lines are logged, and in which format.

    Attributes:
        json_lines: Of the command line, and so of steps that are containers; engines with
            their own workers keep logs in their format.
    """

    level: str = "INFO"
    json_lines: bool = False

    @field_validator("level")
    @classmethod
    def _level_exists(cls, value: str) -> str:
        if value.upper() not in logging.getLevelNamesMapping():
            raise ValueError("must be DEBUG, INFO, WARNING, ERROR or CRITICAL")
        return value.upper()


class _Environment(EnvSettingsSource):
    """Variables; unknown or unreadable ones are passed on, for the checks to report by name."""

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

    @property
    def split(self) -> Split:
        """By what rows are held out: by time where the data has partitions, else at random."""
        return self.training.split or ("random" if self.data.unit == "none" else "time")

    @property
    def splits_by_time(self) -> bool:
        """Whether the newest partitions are held out."""
        return self.split in ("time", "time_and_group")

    @model_validator(mode="after")
    def _artefacts_and_source_are_apart(self) -> Settings:
        home = project_root().resolve()
        root, source = ((home / one).resolve() for one in (self.storage.root, self.data.source))
        if "://" not in self.storage.root and root in (source, home, Path(root.anchor)):
            raise PydanticCustomError(
                "storage",
                f'storage.root "{self.storage.root}" must be a separate folder, like '
                '"var/artifacts"',
            )
        return self

    @model_validator(mode="after")
    def _split_leaves_partitions_to_learn_from(self) -> Settings:
        training = self.training
        if not self.splits_by_time:
            return self
        if self.data.unit == "none":
            raise PydanticCustomError(
                "split", f'training.split "{self.split}" needs a data.cadence other than "none"'
            )
        if training.window < training.holdout + training.gap + 2:
            gap = f" and gap ({training.gap})" if training.gap else ""
            raise PydanticCustomError(
                "split",
                f"training.window ({training.window}) must exceed holdout "
                f"({training.holdout}){gap} by 2 or more",
            )
        return self


def load_environment() -> None:
    """Load .env of the project into the environment; variables that are set already win.

    If the shell or .env names a proxy, this machine is reached without it.
    """
    from dotenv import load_dotenv

    load_dotenv(project_root() / ".env")
    _bypass_proxy_on_loopback()


def _bypass_proxy_on_loopback() -> None:
    from urllib.request import getproxies_environment

    if not getproxies_environment().keys() - {"no"}:
        return
    # Each library reads one of the two.
    names = ("no_proxy", "NO_PROXY")
    known = [host.strip() for name in names for host in os.environ.get(name, "").split(",")]
    hosts = dict.fromkeys([*filter(None, known), "localhost", "127.0.0.1", "::1"])
    # A star counts only where it is alone.
    os.environ |= dict.fromkeys(names, "*" if "*" in hosts else ",".join(hosts))


@functools.cache
def load_settings() -> Settings:
    """Read the settings once per process.

    Raises:
        SettingsError: Names every bad value at once, with what was expected.
    """
    load_environment()
    try:
        return Settings()
    except ValidationError as error:
        lines = [_line(detail) for detail in error.errors()]
        raise SettingsError(
            "bad settings in config/pipeline.toml or PIPELINE_* variables:\n  " + "\n  ".join(lines)
        ) from None
    except ValueError as error:
        raise SettingsError(f"config/pipeline.toml is not readable as TOML: {error}") from None


def _line(detail: ErrorDetails) -> str:
    if not detail["loc"]:
        # From settings that contradict each other; the message names them.
        return detail["msg"]
    if detail["type"] == "extra_forbidden":
        return _unknown(detail["loc"])
    return f"{'.'.join(map(str, detail['loc']))}: {detail['msg']} (got {_shown(detail)})"


def _unknown(location: tuple[int | str, ...]) -> str:
    """Suggest which setting may have been meant by one that does not exist."""
    *sections, name = map(str, location)
    model: type[BaseModel] = Settings
    for section in sections:
        kind = model.model_fields[section].annotation if section in model.model_fields else None
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return f"{'.'.join([*sections, name])}: there is no such setting"
        model = kind
    names = sorted(field.alias or known for known, field in model.model_fields.items())
    close = get_close_matches(name, names, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    where = f"[{'.'.join(sections)}] has" if sections else "the sections are"
    return (
        f"{'.'.join([*sections, name])}: there is no such setting; {meant}{where} "
        f"{', '.join(names)}"
    )


def _shown(detail: ErrorDetails) -> str:
    # Storage options may hold keys.
    if "storage_options" in f"{detail['loc']} {detail['input']}":
        return "***"
    return f"{without_passwords(repr(detail['input'])):.80}"
