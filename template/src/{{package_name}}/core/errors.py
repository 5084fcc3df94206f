"""Errors with a name. Each message says what is wrong, with the value, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .outcomes import Violation


class PipelineError(Exception):
    """Base of all errors that the pipeline raises on purpose; trying again cannot help."""


class BadInput(PipelineError, ValueError):
    """Somebody asked for what does not exist; the message names the value and what there is."""


class SettingsError(PipelineError):
    """A setting has a bad value; the message lists all of them by name."""


class StackError(PipelineError):
    """A service of the stack, or Docker itself, does not do what it should."""


class UpdateError(PipelineError):
    """The project was not updated from its template, or something is left to do."""


class MissingUpstream(PipelineError):
    """A stage was called without the reference of the stage before it."""

    def __init__(self, stage: str, upstream: str) -> None:
        super().__init__(
            f"stage '{stage}' got no '{upstream}': the stage that makes it failed, was skipped, "
            f"or its result was not handed over. Pass its return value to '{stage}'."
        )
        self.stage = stage
        self.upstream = upstream

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.stage, self.upstream)


class StageTimeout(TimeoutError):
    """A stage ran longer than its limit; trying again may help."""

    def __init__(self, stage: str, seconds: float) -> None:
        super().__init__(
            f"stage '{stage}' ran longer than its limit of {seconds / 60:g} minutes: find out what "
            "it waits for, or raise stage_timeout_minutes in [limits]"
        )
        self.stage = stage
        self.seconds = seconds

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.stage, self.seconds)


class NotValidated(PipelineError):
    """A stage was given data that never passed the validate stage."""


class UntrackedRun(PipelineError):
    """A stage was called without the MLflow run that records it."""


class MissingPartitions(PipelineError):
    """Partitions of the window are not at the source."""


class DataRejected(PipelineError):
    """Data broke the contract beyond its limits; nothing was trained, scored or promoted.

    Attributes:
        partition: The partition, or several in a row.
        violations: The broken limits.
        report_uri: The report of which rows and columns.
    """

    def __init__(
        self, partition: str, violations: Sequence[Violation], report_uri: str = ""
    ) -> None:
        lines = "".join(f"\n  - {violation}" for violation in violations)
        where = f"\nReport: {report_uri}" if report_uri else ""
        super().__init__(f"partition {partition} was rejected:{lines}{where}")
        self.partition = partition
        self.violations = tuple(violations)
        self.report_uri = report_uri

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.partition, self.violations, self.report_uri)


class NoChampion(PipelineError):
    """The registry holds no champion to score, serve or roll back with."""
