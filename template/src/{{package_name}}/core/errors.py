"""Named errors. Each message says what is wrong, with the value, and what to do."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .outcomes import Misfit, Violation


class PipelineError(Exception):
    """Base of all errors that the pipeline raises on purpose; a retry cannot help."""


class BadInput(PipelineError, ValueError):
    """The requested item does not exist; the message names it and what is available."""


class SettingsError(PipelineError):
    """Settings have bad values; the message lists all of them by name."""


class CodeError(PipelineError):
    """A mistake in code; the message says which, with file and line, and the cause is the error."""


class DomainError(PipelineError):
    """A file of domain/ lacks something or has it in the wrong form; names both."""


class NoAccess(PipelineError):
    """A disk is full or read-only, or a permission is missing; says which, and what to do."""


class StackError(PipelineError):
    """A service of the stack, or Docker itself, does not work as it should."""


class StoreError(PipelineError):
    """The project's own MLflow store cannot be read, and must not be replaced."""


class UpdateError(PipelineError):
    """The project was not updated from its template, or something remains to be done."""


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
    """A stage ran longer than its limit; a retry may help."""

    def __init__(self, stage: str, seconds: float) -> None:
        super().__init__(
            f"stage '{stage}' ran longer than its limit of {seconds / 60:g} minutes: find out what "
            "it waits for, or raise stage_timeout_minutes in [limits]"
        )
        self.stage = stage
        self.seconds = seconds

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.stage, self.seconds)


class Terminated(BaseException):
    """A signal ends this process. Not an `Exception`, so it never counts as a failed stage.

    Attributes:
        number: The signal.
        stage: What it interrupted; empty if unknown.
    """

    def __init__(self, number: int, stage: str = "") -> None:
        where = f" in {stage}" if stage else ""
        super().__init__(
            f"Ctrl-C ended the run{where}: run it again when you like"
            if number == signal.SIGINT
            else f"{signal.Signals(number).name} ended the run{where}: look who sent it (systemd, "
            "a pod's end, a time limit), then run it again"
        )
        self.number = number
        self.stage = stage

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.number, self.stage)

    @property
    def exit_code(self) -> int:
        """The exit code that shells expect of a process ended by a signal."""
        return 128 + self.number

    @property
    def is_interactive(self) -> bool:
        """Whether the user pressed Ctrl-C, in which case no alert is needed."""
        return self.number == signal.SIGINT


class NotValidated(PipelineError):
    """A stage was given data that never passed the validate stage."""


class UntrackedRun(PipelineError):
    """A stage was called without the MLflow run that records it."""


class MissingPartitions(PipelineError):
    """Partitions of the window are not at the source."""


class StillArriving(RuntimeError):
    """A partition's files are still being written; a retry may help."""


class DataRejected(PipelineError):
    """Data broke the contract beyond its limits; nothing was trained, scored or promoted.

    Attributes:
        partition: The partition, or several in a row.
        violations: The broken limits.
        report_uri: The report that shows which rows and columns.
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


class ChampionUnusable(PipelineError):
    """The champion was stored by other code and cannot predict today's rows."""

    def __init__(self, version: int, misfit: Misfit) -> None:
        super().__init__(
            f"version {version}, the champion, cannot predict: {misfit}. Restore what it needs, "
            "train another one (`uv run poe run`), or put the one before back "
            "(`uv run poe rollback`)"
        )
        self.version = version
        self.misfit = misfit

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.version, self.misfit)


class ChampionMoved(PipelineError):
    """Another run, a rollback or a person has changed the champion since it was read."""


def in_one_line(error: BaseException) -> str:
    """Return an error as people know it from tracebacks; a mistake by its own name."""
    return f"{error}" if isinstance(error, CodeError) else f"{type(error).__name__}: {error}"
