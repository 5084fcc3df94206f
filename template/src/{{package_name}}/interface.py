"""The door to domain/: the team's code is checked here, and imported nowhere else.

Each of its files is read when it is first needed, since some import heavier libraries.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SkipValidation,
    ValidationError,
    field_validator,
    model_validator,
)

from .core import optional
from .core.code_errors import at_place
from .core.context import Context
from .core.errors import DomainError
from .core.outcomes import STAGES

if TYPE_CHECKING:
    import polars as pl
    from pandera.api.polars.container import DataFrameSchema

    from .core.cadence import Cadence

Columns = tuple[str, ...]
Functions = tuple[Callable[..., Any], ...]
# The stages that the team's own steps may follow.
STEPS_FOLLOW = ("validate", "promote", "score")
# Columns that stand beside KEY in predictions, or beside features.
OURS = ("prediction", "model_version", "target")
# The column by which rows are numbered while they are validated or scored.
ROW = "__row__"
T = TypeVar("T", bound="_File")
# Names that a run's steps already have, in one engine or another.
TAKEN = {*STAGES, "wait_for_partition", "finish"}


class Metrics(Protocol):
    """How predictions are made and measured: a module of ml/metrics/, or a custom one.

    A prediction is a frame with the column `prediction`: the class, or the number. Classification
    has `probability_<class>` for each class beside it.

    Attributes:
        PRIMARY: The metric that compares models; a key of what `score` returns.
        GREATER_IS_BETTER: Whether more of it is better.
    """

    PRIMARY: str
    GREATER_IS_BETTER: bool

    def predict(self, model: Any, rows: Any) -> pl.DataFrame:
        """Return a prediction for each row."""

    def score(self, target: pl.Series, prediction: pl.DataFrame) -> dict[str, float]:
        """Measure predictions against what came true."""

    def plots(self, target: pl.Series, prediction: pl.DataFrame) -> dict[str, str]:
        """Draw predictions against what came true: an SVG or a table for each title."""


class _File(BaseModel):
    """What a file of domain/ defines; the aliases are the names there."""

    model_config = ConfigDict(frozen=True, extra="ignore", arbitrary_types_allowed=True)


def is_unusable(name: str) -> bool:
    """Return whether polars reads a column's name as a pattern, or it is the row number's."""
    return name in ("*", ROW) or (name.startswith("^") and name.endswith("$"))


class Schema(_File):
    """schema.py: what a row is."""

    contract: Any = Field(alias="CONTRACT", description="the data contract, of pandera")
    label: str = Field(alias="LABEL", description="the column that a partition may come without")
    key: Columns = Field((), alias="KEY", description="the columns that identify a row, if any do")
    time: str | None = Field(
        None, alias="TIME", description="the column with a row's date or time, if any"
    )
    group: Columns = Field(
        (), alias="GROUP", description="the columns whose rows a split keeps together, if any"
    )
    stable_columns: Columns = Field(
        (), alias="STABLE_COLUMNS", description="columns that must not jump between partitions"
    )

    @property
    def types(self) -> dict[str, pl.DataType]:
        """The type of each column of the contract."""
        return {name: column.dtype.type for name, column in self.contract.columns.items()}

    def time_for(self, cadence: Cadence) -> str | None:
        """Return the column that says which partition a row is of; a snapshot may have none.

        Raises:
            DomainError: There is none, and partitions span a time.
        """
        if self.time is None and cadence.unit != "none":
            raise DomainError(
                "domain/schema.py has no TIME, the column that says which partition a row is of: "
                'name it there, or set cadence = "none" in [data]'
            )
        return self.time

    @field_validator("group", mode="before")
    @classmethod
    def _one_group_is_fine(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("contract")
    @classmethod
    def _contract_is_of_pandera(cls, value: Any) -> DataFrameSchema:
        import pandera.polars as pa

        if isinstance(value, pa.DataFrameSchema):
            return value
        if not (isinstance(value, type) and issubclass(value, pa.DataFrameModel)):
            raise ValueError("must be a class derived from pandera.polars.DataFrameModel")
        return value.to_schema()

    @model_validator(mode="after")
    def _roles_are_columns(self) -> Schema:
        import polars as pl

        roles = {
            "LABEL": (self.label,),
            "KEY": self.key,
            "GROUP": self.group,
            "TIME": () if self.time is None else (self.time,),
            "STABLE_COLUMNS": self.stable_columns,
        }
        unknown = [
            f"{role} names '{name}', which is not a column of the contract"
            for role, names in roles.items()
            for name in names
            if name not in self.contract.columns
        ]
        if unknown:
            raise ValueError("; ".join(unknown))
        columns = self.contract.columns
        if unusable := [name for name in columns if is_unusable(name)]:
            raise ValueError(
                f"column '{unusable[0]}' of the contract has a name that polars, or the pipeline, "
                "takes for something else: rename it in the source"
            )
        if taken := [name for name in self.key if name in OURS or name.startswith("probability_")]:
            raise ValueError(
                f"KEY names '{taken[0]}', as a column of predictions is called: rename it in the "
                "source, or take another key"
            )
        if self.label in (*self.key, *self.group, self.time):
            raise ValueError(
                f"'{self.label}' is the LABEL, which rows to score lack: KEY, GROUP and TIME "
                "cannot name it"
            )
        if untyped := [name for name, column in columns.items() if column.dtype is None]:
            raise ValueError(f"column '{untyped[0]}' of the contract has no type")
        if not columns[self.label].nullable:
            raise ValueError(
                f"LABEL names '{self.label}', which must be nullable: a row to score has none"
            )
        if self.time and self.contract.columns[self.time].dtype.type not in (pl.Date, pl.Datetime):
            raise ValueError(f"TIME names '{self.time}', which is neither a date nor a datetime")
        return self


def _no_encoder() -> Any:
    """Leave the features as they are: each candidate begins with its own encoder."""
    from sklearn.preprocessing import FunctionTransformer

    return FunctionTransformer()


class Features(_File):
    """features.py: what a model sees of a row."""

    names: Columns = Field(
        alias="FEATURES", min_length=1, description="the columns that a model learns from"
    )
    stable: Columns = Field(
        (), alias="STABLE_FEATURES", description="the features whose drift asks for a new model"
    )
    compute: Callable[..., Any] = Field(
        alias="features", description="a function that adds the feature columns to validated rows"
    )
    lookback: int = Field(
        0, ge=0, alias="LOOKBACK", description="how many partitions before features() looks at"
    )
    encoder: Callable[[], Any] = Field(
        default=_no_encoder,
        description="a function that returns the transformer from features to a matrix, not fitted",
    )

    @field_validator("names")
    @classmethod
    def _names_are_usable(cls, value: Columns) -> Columns:
        if unusable := [name for name in value if is_unusable(name) or name == "target"]:
            raise ValueError(
                f"'{unusable[0]}' is a pattern of polars', or the name of what is predicted: call "
                "this feature something else"
            )
        return value

    @model_validator(mode="after")
    def _who_looks_back_takes_a_context(self) -> Features:
        if self.lookback and not self._takes_context:
            raise ValueError(f"LOOKBACK is {self.lookback}: define features(rows, context)")
        return self

    @property
    def _takes_context(self) -> bool:
        return len(inspect.signature(self.compute).parameters) > 1

    def of(self, rows: pl.DataFrame, context: Context | None = None) -> pl.DataFrame:
        """Return validated rows with their feature columns.

        Args:
            rows: Rows of one partition.
            context: What is known of earlier partitions; optional if no feature looks back.

        Raises:
            DomainError: The context is missing, or the result lacks a feature, or has more or
                fewer rows.
        """
        if self.lookback and context is None:
            raise DomainError(self.looks_back)
        given = (rows, context or Context.of(rows))
        with _its_columns("features"):
            made: pl.DataFrame = self.compute(*given if self._takes_context else given[:1])
        if missing := [name for name in self.names if name not in made.columns]:
            raise DomainError(
                f"{_path('features')}: features() returned no column '{missing[0]}', which "
                "FEATURES names"
            )
        if made.height != rows.height:
            raise DomainError(
                f"{_path('features')}: features() returned {made.height} rows for {rows.height}; "
                "it must neither drop nor add any"
            )
        return made

    @property
    def looks_back(self) -> str:
        """Say what rows alone lack if features look back."""
        return (
            f"the features look back on the {self.lookback} partitions before (LOOKBACK in "
            "domain/features.py), which rows alone do not bring"
        )


class Problem(_File):
    """problem.py: what is predicted, by which models, and how that is measured."""

    target: Callable[[], Any] = Field(
        description="a function that returns what is predicted as a polars expression"
    )
    metrics: SkipValidation[Metrics] = Field(
        description="a module like those of ml/metrics/, with PRIMARY, GREATER_IS_BETTER, predict, "
        "score and plots"
    )
    candidates: Mapping[str, Callable[[Any, int], Any]] = Field(
        alias="CANDIDATES",
        min_length=1,
        description="the candidates by name, each a function of an Optuna trial and a seed",
    )
    fit: Callable[..., Any] | None = Field(
        None, description="a function that fits an estimator and replaces its fit method"
    )
    threshold: Callable[..., float] | None = Field(
        None, alias="THRESHOLD", description="a rule of ml/metrics/thresholds.py, for two classes"
    )

    def require(self, names: Iterable[str]) -> None:
        """Raise DomainError if one of these candidates does not exist."""
        if unknown := [name for name in names if name not in self.candidates]:
            raise DomainError(
                f"[training] candidates names '{unknown[0]}', which CANDIDATES of "
                f"{_path('problem')} does not have; there are: {', '.join(self.candidates)}"
            )

    def with_target(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return rows with the column `target`; raises DomainError if a column is missing."""
        with _its_columns("problem"):
            return rows.with_columns(self.target().alias("target"))

    @field_validator("metrics", mode="before")
    @classmethod
    def _metrics_are_whole(cls, value: Any) -> Any:
        wanted = ("PRIMARY", "GREATER_IS_BETTER", "predict", "score", "plots")
        if missing := [name for name in wanted if not hasattr(value, name)]:
            raise ValueError(f"has no {', '.join(missing)}")
        return value


class Steps(_File):
    """steps.py: what the team does after a stage; each function is a separate step."""

    after_validate: Functions = Field(
        (), alias="AFTER_VALIDATE", description="functions of a run and its validated dataset"
    )
    after_promote: Functions = Field(
        (), alias="AFTER_PROMOTE", description="functions of a run and what was promoted, or not"
    )
    after_score: Functions = Field(
        (), alias="AFTER_SCORE", description="functions of a run and its predictions"
    )

    @field_validator("*")
    @classmethod
    def _steps_have_names_of_their_own(cls, value: Functions) -> Functions:
        for function in value:
            name = getattr(function, "__name__", "")
            if not name.isidentifier():
                raise ValueError(f"{function!r} has no name: define it with `def`")
            if name in TAKEN:
                raise ValueError(f"'{name}' is a step of the pipeline: choose another name")
        return value

    @model_validator(mode="after")
    def _no_name_is_there_twice(self) -> Steps:
        names = [name for stage in STEPS_FOLLOW for name in self.after(stage)]
        given = sum(len(getattr(self, f"after_{stage}")) for stage in STEPS_FOLLOW)
        if len(set(names)) < given:
            raise ValueError("two steps have the same name, or one is there twice")
        return self

    def after(self, stage: str) -> dict[str, Callable[..., Any]]:
        """Return the steps that follow a stage, by name, in the order in which they run."""
        return {step.__name__: step for step in getattr(self, f"after_{stage}")}


class Rows(_File):
    """source.py: where rows come from, where `[data] kind` is python."""

    partitions: Callable[[], Any] = Field(
        description="a function that returns the names of the partitions that are complete"
    )
    read: Callable[[str], Any] = Field(
        description="a function that returns the rows of a partition as a polars frame"
    )


@functools.cache
def load_schema() -> Schema:
    """Read schema.py.

    Raises:
        DomainError: Names the file, and everything in it that is missing or wrong.
    """
    return _read("schema", Schema)


@functools.cache
def load_features() -> Features:
    """Read features.py; raises like `load_schema`."""
    return _read("features", Features)


@functools.cache
def load_problem() -> Problem:
    """Read problem.py; raises like `load_schema`."""
    return _read("problem", Problem)


@functools.cache
def load_steps() -> Steps:
    """Read steps.py, which a team need not have; raises like `load_schema`.

    Engines ask for the steps' names whenever they load a pipeline, so the file must import no more
    than the standard library before a step runs.
    """
    return _read("steps", Steps, optional_file=True)


@functools.cache
def load_rows() -> Rows:
    """Read source.py; raises like `load_schema`."""
    return _read("source", Rows)


def advice() -> str:
    """Return what is odd about the domain but not an error yet; empty if nothing is.

    Features and target are computed on zero rows, which shows the columns that they ask for and
    that do not exist. Code that makes columns from values, like a pivot, may still be right.
    """
    import polars as pl

    features = load_features()
    if other := [name for name in features.stable if name not in features.names]:
        return f"STABLE_FEATURES names '{other[0]}', which is not among FEATURES: no effect"
    rows = pl.DataFrame(schema=load_schema().types)
    try:
        load_problem().with_target(features.of(rows, Context.of(rows)))
    except DomainError as error:
        return f"tried on no rows, {error}"
    except (Exception, pl.exceptions.PanicException):
        # Only a run shows whether code that needs a row is right. A panic of polars is not an
        # `Exception`.
        return ""
    return ""


def domain_package() -> ModuleType:
    """Return the package that the team's code is in."""
    return sys.modules[f"{optional.load('domain.problem').__package__}"]


def check_domain() -> None:
    """Read all of domain/; source.py only where the settings say that rows come from there.

    Raises:
        DomainError: Names everything that is missing or wrong, in all files.
    """
    errors = []
    loads: list[Callable[[], _File]] = [load_schema, load_features, load_problem, load_steps]
    # Engines read steps.py while they parse, and must not read the settings for that.
    from .core.settings import load_settings

    if load_settings().data.kind == "python":
        loads.append(load_rows)
    for load in loads:
        try:
            load()
        except DomainError as error:
            errors.append(f"{error}")
    if errors:
        raise DomainError("\n".join(errors))


def _read(name: str, kind: type[T], *, optional_file: bool = False) -> T:
    try:
        module = optional.load(f"domain.{name}")
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and f"{error.name}".endswith(f".{name}")
        if missing and optional_file:
            return kind()
        raise DomainError(
            f"{_path(name)} cannot be imported: {type(error).__name__}: {error}{at_place(error)}"
        ) from error
    try:
        return kind.model_validate(vars(module))
    except ValidationError as error:
        fields = kind.model_fields.items()
        described = {field.alias or name: field.description for name, field in fields}
        lines = []
        for detail in error.errors():
            attribute = f"{detail['loc'][0]}" if detail["loc"] else ""
            wanted = f" ({described[attribute]})" if attribute in described else ""
            reason = "is missing" if detail["type"] == "missing" else detail["msg"]
            lines.append(f"  {attribute}{wanted}: {reason}".rstrip())
        raise DomainError("\n".join([f"{_path(name)} is not complete:", *lines])) from None


@contextmanager
def _its_columns(name: str) -> Iterator[None]:
    """Name the file that asks for a column that does not exist."""
    from polars.exceptions import ColumnNotFoundError

    try:
        yield
    except ColumnNotFoundError as error:
        function = {"features": "features", "problem": "target"}[name]
        raise DomainError(
            f"{_path(name)}: {function}() asks for a column that neither the rows have nor it "
            f"makes: {f'{error}'.splitlines()[0]}"
        ) from error


def _path(name: str) -> str:
    return f"domain/{name}.py"
