"""What every stage has in common: checked references, log lines, timing and a record of the run."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import time
import typing
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, ParamSpec, TypeVar

from pydantic import TypeAdapter, ValidationError

from . import ending, storage
from .code_errors import mistakes_named
from .deadline import EXIT_CODE, deadline
from .errors import BadInput, MissingUpstream, StageTimeout, Terminated, UntrackedRun
from .explain import explain, explained
from .logs import CONTEXT, get_logger
from .outcomes import Window
from .records import StageError, StageRecord, record_path
from .redact import redact_error
from .refs import Ref, Run

log = get_logger(__name__)

# Names the file from which a watcher follows a run, whatever processes its stages are in: one line
# per start or end.
EVENTS = "STAGE_EVENTS_FILE"
# Called with a stage's label as it starts (record None) and with its record as it ends.
listeners: list[Callable[[str, StageRecord | None], None]] = []
# Called with the run, a stage's label and the error when the stage's time limit ends this process.
on_timeout: set[Callable[[Run, str, StageTimeout], object]] = set()
# Called with the run after `on_timeout`. A runner in this process closes its run here; an engine
# whose other processes live on does that itself.
before_exit: list[Callable[[Run], object]] = []

# The calls of stages that have not ended.
_running: list[_Call] = []

P = ParamSpec("P")
R = TypeVar("R", bound=Ref)


def stage(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function a stage of the pipeline.

    References may arrive as models or as their JSON. A missing one raises `MissingUpstream`, a
    run that MLflow does not know raises `UntrackedRun`. A mistake in code becomes a `CodeError`,
    which no engine retries. Each call logs its start and end and writes a
    `StageRecord`, also when it fails. It ends at the time limit of the settings, see
    `deadline`; if that ends the process, it is recorded and alerted first. SIGTERM ends it like
    a failure, see `ending`.
    """
    signature = inspect.signature(function)
    # Resolved at the first call: annotations are strings until then.
    hints = functools.cache(lambda: typing.get_type_hints(function))

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        name = function.__name__
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise BadInput(f"stage '{name}': {error}") from None
        bound.apply_defaults()
        given = bound.arguments
        given["run"] = run = _check_run(name, given["run"])
        for parameter, value in given.items():
            given[parameter] = _check_reference(name, parameter, hints()[parameter], value)
        call = _Call(run, name, label_of(name, given))
        limit = deadline(call.label, call.limit_seconds, call.before_process_ends)
        with ending.raise_signals(), call, limit, explained(), mistakes_named():
            result = function(*bound.args, **bound.kwargs)
            call.result = result
        return result

    return wrapper


def end_running(error: Terminated) -> dict[str, Run]:
    """Record the stages that still run in other threads as ended by a signal.

    Returns:
        Their runs, by label.
    """
    calls = list(_running)
    for call in calls:
        call.end(error)
    return {call.label: call.run for call in calls}


class _Call:
    """One call of a stage: shown in the log, and recorded once, however it ends."""

    def __init__(self, run: Run, stage: str, label: str) -> None:
        self.run, self.stage, self.label = run, stage, label
        self.limit_seconds = 60 * run.settings.limits.stage_timeout_minutes
        self.result: Ref | None = None
        self._started, self._clock = datetime.now(UTC), time.perf_counter()

    def __enter__(self) -> None:
        _running.append(self)
        context = {"run": self.run.key, "partition": self.run.partition, "stage": self.label}
        self._token = CONTEXT.set(context)
        _notify(self.run, self.label, None)
        log.info("started")

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            # The engine also logs it.
            redact_error(error)
        if isinstance(error, Terminated):
            self.end(error)
        else:
            self._record(error)
        CONTEXT.reset(self._token)

    def end(self, error: Terminated) -> None:
        """Record that a signal ended it."""
        self._record(Terminated(error.number, self.label), error.exit_code)

    def before_process_ends(self, error: StageTimeout) -> None:
        """Do what cannot be done once this process is gone."""
        self._record(error, EXIT_CODE)
        for tell in on_timeout:
            tell(self.run, self.label, error)
        for close in before_exit:
            close(self.run)

    def _record(self, error: BaseException | None, exit_code: int | None = None) -> None:
        try:
            _running.remove(self)
        except ValueError:
            # A thread that ends while its process does.
            return
        record = StageRecord(
            stage=self.stage,
            label=self.label,
            started=self._started,
            seconds=round(time.perf_counter() - self._clock, 3),
            result=None if self.result is None else self.result.model_dump(mode="json"),
            error=None if error is None else StageError.of(error),
            exit_code=exit_code,
            attempt=self.run.tracking_run_id,
            partition=f"{self.run.partition}",
        )
        if record.error is None:
            log.info("finished in %.1f s", record.seconds)
        else:
            log.error("failed after %.1f s: %s", record.seconds, record.error)
        try:
            storage.write_model(record_path(self.run.key, self.label), record)
        except OSError as lost:
            known = explain(lost) or lost
            if error is None:
                raise known from None
            # The stage's error is raised, not this one, which may come from the same full disk.
            log.error("that could not be recorded: %s", known)
        _notify(self.run, self.label, record)


class StageEvent(Ref):
    """A stage of a run has started, or ended where there is a record."""

    run_key: str
    label: str
    record: StageRecord | None = None


def _notify(run: Run, label: str, record: StageRecord | None) -> None:
    for listener in listeners:
        listener(label, record)
    if EVENTS in os.environ:
        # In one call, so that lines of several processes do not mix; the watcher may be gone.
        event = StageEvent(run_key=run.key, label=label, record=record)
        with contextlib.suppress(OSError), open(os.environ[EVENTS], "ab", buffering=0) as file:
            file.write(f"{event.model_dump_json()}\n".encode())


def _check_run(stage: str, value: Any) -> Run:
    run: Run = _check_reference(stage, "run", Run, value)
    if not run.tracking_run_id:
        raise UntrackedRun(
            f"stage '{stage}' of run '{run.key}' has no MLflow run: begin with the start stage"
        )
    return run


def _check_reference(stage: str, parameter: str, hint: Any, value: Any) -> Any:
    is_reference = isinstance(hint, type) and issubclass(hint, Ref)
    if value is None and is_reference:
        raise MissingUpstream(stage, parameter)
    # Own steps check their other parameters themselves.
    if not is_reference and typing.get_origin(hint) is not Literal:
        return value
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        reasons = "; ".join(
            ".".join([parameter, *map(str, detail["loc"])]) + f": {detail['msg']}"
            for detail in error.errors()
        )
        kind = f" as {hint.__name__}" if is_reference else ""
        raise BadInput(f"stage '{stage}' cannot take {parameter}{kind}: {reasons}") from None


def label_of(stage: str, arguments: Mapping[str, Any]) -> str:
    """Return the label that identifies a stage call within its run, see `StageRecord`."""
    candidate = arguments.get("candidate")
    parts = [stage]
    if isinstance(candidate, str):
        parts.append(candidate)
    if "wider" in _windows(arguments):
        parts.append("wider")
    return "-".join(parts)


def _windows(arguments: Mapping[str, Any]) -> Iterable[Window | None]:
    """Yield the window that is asked for, and those of the references, as models or as JSON."""
    yield arguments.get("window")
    for value in arguments.values():
        for item in value if isinstance(value, list | tuple) else [value]:
            yield item.get("window") if isinstance(item, dict) else getattr(item, "window", None)
