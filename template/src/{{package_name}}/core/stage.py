"""What every stage has in common: checked references, log lines, timing and a record of the run."""

from __future__ import annotations

import functools
import inspect
import json
import time
import typing
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar

from pydantic import BaseModel, ConfigDict
from upath import UPath

from . import storage
from .deadline import EXIT_CODE, deadline
from .errors import MissingUpstream, StageTimeout, UntrackedRun
from .logs import CONTEXT, get_logger
from .redact import redact, redact_error
from .refs import Ref, Run
from .settings import load_settings

log = get_logger(__name__)

# Called with a stage's label as it starts (record None) and with its record as it ends.
listeners: list[Callable[[str, StageRecord | None], None]] = []
# Called with the run, a stage's label and the error when the stage's time limit ends this process.
on_timeout: set[Callable[[Run, str, StageTimeout], object]] = set()
# Called with the run after that. A runner that is this process
# closes its run there; an engine whose other processes live on does that itself.
before_exit: list[Callable[[Run], object]] = []

P = ParamSpec("P")
R = TypeVar("R", bound=Ref)


class StageRecord(BaseModel):
    """What one stage of one run did; the report, the result table and monitoring read these.

    Attributes:
        label: The stage, with the candidate and the attempt where they tell two records apart.
        seconds: Wall time.
        result: The returned reference as JSON; None when the stage failed.
        error: Type and message of the exception; None when the stage ended well.
        exit_code: What the process ended with where the stage's time limit ended it.
    """

    model_config = ConfigDict(extra="ignore")

    stage: str
    label: str
    started: datetime
    seconds: float
    result: dict[str, Any] | None = None
    error: str | None = None
    exit_code: int | None = None


def stage(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function a stage of the pipeline.

    References may arrive as models or as their JSON. A missing one raises `MissingUpstream`, a
    run that MLflow does not know raises `UntrackedRun`. Each call logs how it began and ended and
    writes a `StageRecord`, also when it fails. It ends at the time limit of the settings, see
    `deadline`; where that ends the process, it is recorded and alerted before.
    """
    name = function.__name__
    signature = inspect.signature(function)
    # Resolved at the first call: annotations are strings until then.
    hints = functools.cache(lambda: typing.get_type_hints(function))

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        run = _check_reference(name, "run", Run, bound.arguments["run"])
        if not run.tracking_run_id:
            raise UntrackedRun(
                f"stage '{name}' of run '{run.key}' has no MLflow run: begin with the start stage"
            )
        for parameter, value in bound.arguments.items():
            bound.arguments[parameter] = _check_reference(
                name, parameter, hints()[parameter], value
            )
        label = label_of(name, bound.arguments)
        token = CONTEXT.set({"run": run.key, "partition": f"{run.partition}", "stage": label})
        started, clock = datetime.now(UTC), time.perf_counter()
        result: R | None = None
        error: BaseException | None = None
        limit = 60 * load_settings().limits.stage_timeout_minutes

        def record(exit_code: int | None = None) -> None:
            written = StageRecord(
                stage=name,
                label=label,
                started=started,
                seconds=round(time.perf_counter() - clock, 3),
                result=result.model_dump(mode="json") if result is not None else None,
                error=redact(f"{type(error).__name__}: {error}") if error is not None else None,
                exit_code=exit_code,
            )
            if error is None:
                log.info("finished in %.1f s", written.seconds)
            else:
                log.error("failed after %.1f s: %s", written.seconds, written.error)
            storage.write_text(_record_path(run, label), written.model_dump_json(indent=1))
            _notify(label, written)

        def before_process_ends(timeout: StageTimeout) -> None:
            nonlocal error
            error = timeout
            record(EXIT_CODE)
            for tell in on_timeout:
                tell(run, label, timeout)
            for close in before_exit:
                close(run)

        _notify(label, None)
        log.info("started")
        try:
            with deadline(label, limit, before_process_ends):
                result = function(*bound.args, **bound.kwargs)
        except BaseException as caught:
            # The engine logs it, too.
            redact_error(caught)
            error = caught
            raise
        finally:
            record()
            CONTEXT.reset(token)
        return result

    return wrapper


def _notify(label: str, record: StageRecord | None) -> None:
    for listener in listeners:
        listener(label, record)


def read_records(run_key: str) -> list[StageRecord]:
    """Return the records of a run's stages, in the order in which they started."""
    folder = storage.artifact_path("runs", run_key)
    if not folder.is_dir():
        return []
    files = (entry for entry in folder.iterdir() if entry.suffix == ".json")
    records = [StageRecord.model_validate_json(entry.read_text()) for entry in files]
    return sorted(records, key=lambda record: record.started)


def read_checked_days(run: Run, records: Sequence[StageRecord]) -> list[dict[str, Any]]:
    """Return what the validate stage wrote about each day, also when it rejected them."""
    snapshots = [one.result for one in records if one.stage == "ingest" and one.result is not None]
    if not snapshots:
        return []
    name = f"{snapshots[-1]['fingerprint']}.json"
    path = storage.artifact_path("validation", f"{run.partition}", name)
    return list(json.loads(path.read_text())) if path.exists() else []


def _check_reference(stage_name: str, parameter: str, hint: Any, value: Any) -> Any:
    if not (isinstance(hint, type) and issubclass(hint, Ref)):
        return value
    if value is None:
        raise MissingUpstream(stage_name, parameter)
    return value if isinstance(value, hint) else hint.model_validate(value)


def label_of(name: str, arguments: dict[str, Any]) -> str:
    """Return what tells a call of a stage from others of its run, see `StageRecord`."""
    values = [item for value in arguments.values() for item in _items(value)]
    attempts = [
        item.get("attempt", 1) if isinstance(item, dict) else getattr(item, "attempt", 1)
        for item in values
    ]
    candidate = arguments.get("candidate")
    second = max(attempts) == 2 or arguments.get("attempt") == 2
    parts = [name, candidate if isinstance(candidate, str) else "", "2" if second else ""]
    return "-".join(part for part in parts if part)


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _record_path(run: Run, label: str) -> UPath:
    return storage.artifact_path("runs", run.key, f"{label}.json")
