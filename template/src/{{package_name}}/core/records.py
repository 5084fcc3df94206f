"""What is kept of a run: a record of each stage, and what validation saw."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from traceback import format_exception
from typing import Any

from upath import UPath

from . import storage
from .code_errors import place_of
from .errors import CodeError, DataRejected, DomainError, PipelineError, Terminated
from .outcomes import CheckedPartition, Outcome, Stored, Violation
from .redact import presentable, redact
from .refs import Run


class StageError(Outcome):
    """The exception that ended a stage.

    Attributes:
        kind: Name of its class.
        violations: The broken limits, where data was rejected.
        location: The project's file, line and function that raised it; empty if the message
            says it all, or it happened elsewhere.
        code: The lines of the file up to that one.
        traceback: Python's, of the error and its causes; empty if the message says it all.
    """

    kind: str
    message: str
    violations: tuple[Violation, ...] = ()
    location: str = ""
    code: str = ""
    traceback: str = ""

    @classmethod
    def of(cls, error: BaseException) -> StageError:
        """Return an exception without the secrets it may hold."""
        violations = error.violations if isinstance(error, DataRejected) else ()
        mistake = isinstance(error, CodeError | DomainError) and error.__cause__
        place, trace = None, ""
        if mistake or not isinstance(error, PipelineError | Terminated):
            place = place_of(mistake or error)
            trace = presentable("".join(format_exception(mistake or error)))
        if isinstance(error, CodeError) and mistake:
            error = mistake
        return cls(
            kind=type(error).__name__,
            # An engine's error for a signal has no message, and is not an `Exception`.
            message=presentable(str(error))
            or ("" if isinstance(error, Exception) else "a signal ended the process"),
            violations=tuple(
                one.model_copy(update={"detail": redact(one.detail)}) for one in violations
            ),
            location=place.location if place else "",
            code=presentable(place.code) if place else "",
            traceback=trace,
        )

    def __str__(self) -> str:
        """Return the error in the form of a traceback's last line."""
        return f"{self.kind}: {self.message}"


class StageRecord(Stored):
    """What one stage of one run did; the report, the result table and monitoring read these.

    Attributes:
        label: The stage, with the candidate and the window where needed to tell two records apart.
        seconds: Wall time.
        result: The returned reference as JSON; None when the stage failed.
        error: Why it failed; None when it succeeded.
        attempt: The MLflow run: a key that is run again with other settings has another.
        partition: The run's; older code named none.
        exit_code: The process's exit code if the stage's time limit or a signal ended it.
    """

    stage: str
    label: str
    started: datetime
    seconds: float
    result: dict[str, Any] | None = None
    error: StageError | None = None
    exit_code: int | None = None
    attempt: str = ""
    partition: str = ""


def record_path(run_key: str, label: str) -> UPath:
    """Return where the record of a stage is kept."""
    return _run_folder(run_key) / f"{label}.json"


def read_records(run_key: str) -> list[StageRecord]:
    """Return the records of the stages of a run's last attempt, in the order they started."""
    folder = _run_folder(run_key)
    if not folder.is_dir():
        return []
    files = (entry for entry in folder.iterdir() if entry.suffix == ".json")
    records = [StageRecord.model_validate_json(entry.read_text()) for entry in files]
    records.sort(key=lambda record: record.started)
    # Older code named none.
    return [record for record in records if record.attempt in ("", records[-1].attempt)]


class Importance(Stored):
    """Permutation importance by feature, the largest first."""

    features: dict[str, float]


class ValidationReport(Stored):
    """What the validate stage saw, partition by partition."""

    partitions: tuple[CheckedPartition, ...]


def validation_report_path(run: Run, fingerprint: str) -> UPath:
    """Return where the validate stage writes what it saw of a raw dataset."""
    return storage.artifact_path("validation", f"{run.partition}", f"{fingerprint}.json")


def read_checked_partitions(
    run: Run, records: Iterable[StageRecord]
) -> tuple[CheckedPartition, ...]:
    """Return what the validate stage saw of each partition, also when it rejected them."""
    raw = [one.result for one in records if one.stage == "ingest" and one.result is not None]
    path = validation_report_path(run, raw[-1]["fingerprint"]) if raw else None
    if path is None or not path.exists():
        return ()
    return ValidationReport.model_validate_json(path.read_text()).partitions


def _run_folder(run_key: str) -> UPath:
    return storage.artifact_path("runs", run_key)
