"""The command of every step: `python3 -m PACKAGE.orchestration.kubeflow.step ingest --run {…} …`.

Kubeflow hands values over as text on the command line and takes results from the files that
`--to-NAME` names. A step that fails is tried again here, except where that cannot help. Its failure
is kept beside the run's records, and the last step alerts the team once.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from ... import alerts
from ...core import storage
from ...core.deadline import EXIT_CODE
from ...core.ending import raise_signals
from ...core.errors import MissingPartitions, PipelineError, Terminated
from ...core.logs import get_logger, setup_logging
from ...core.records import read_records
from ...core.settings import load_settings
from ...core.stage import label_of
from ...stages import run_stage
from ..runs import arrived, key_of_run, timed_out

if TYPE_CHECKING:
    from upath import UPath

log = get_logger(__name__)

MAX_RETRY_DELAY_SECONDS = 600
# A schedule can't know which partition a run will be about: the one that ended last.
PREVIOUS = "previous"
# State of a run on this machine that somebody has ended by Ctrl-C, which needs no alert.
INTERRUPTED = "INTERRUPTED"
# Names a run on this machine, so that the process that started it recognizes it.
LOCAL_RUN_ID = "KFP_LOCAL_RUN_ID"

Values = dict[str, Any]
T = TypeVar("T")


def main(arguments: Sequence[str]) -> None:
    """Run one step.

    Args:
        arguments: The step's name, then `--NAME VALUE` for each input and `--to-NAME FILE` for
            each output.

    Raises:
        SystemExit: The step failed for good.
    """
    name, *rest = arguments
    flags = [flag.removeprefix("--") for flag in rest[::2]]
    given = dict(zip(flags, rest[1::2], strict=True))
    targets = {flag.removeprefix("to-"): given.pop(flag) for flag in flags if flag[:3] == "to-"}
    given.pop("executor", None)
    if "run_id" in given:
        given["run_id"] = os.environ.get(LOCAL_RUN_ID) or given["run_id"]
    # Bad settings are for the step to report.
    with contextlib.suppress(PipelineError):
        settings = load_settings().logging
        setup_logging(settings.level, json_lines=settings.json_lines)
    try:
        with raise_signals():
            result = STEPS.get(name, stage)(name, given)
    except Terminated as error:
        # As where it was killed, Kubeflow tries again, and the last step alerts.
        log.error("%s", Terminated(error.number, name))
        raise SystemExit(error.exit_code) from None
    for output, target in targets.items():
        value = result[output]
        text = value if isinstance(value, str) else json.dumps(_without_nulls(value))
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).write_text(text, encoding="utf-8")


def _without_nulls(value: Any) -> Any:
    """Leave out what is None, which Kubeflow's values cannot be; references have defaults."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


# --- the steps: text in, a value for each output out -------------------------------------------


def stage(name: str, given: dict[str, str]) -> Values:
    """Run the stage that has the step's name, on references."""
    values: Values = {
        key: text if key == "window" else json.loads(text) for key, text in given.items()
    }
    # A training holds all arguments of its stage.
    values = values.get("training", values)
    run = values["run"]
    step = Try(run["pipeline"], run["key"], label_of(name, values), f"{run['partition']}")
    result = step(lambda: run_stage(name, **values))
    return {"reference": result, "Output": _next(name, values, result)}


def _next(name: str, values: Values, result: Values) -> Any:
    """Return what the loop or condition behind a step reads."""
    if name == "featurize":
        candidates = load_settings().training.candidates
        return [{"run": values["run"], "features": result, "candidate": one} for one in candidates]
    if name == "monitor":
        return "retrain" if result["retrain"] else "keep"
    return result.get("verdict", {}).get("decision")


def wait_for_partition(name: str, given: dict[str, str]) -> Values:
    """Wait until the partition is at the source; takes the newest one where none is wanted."""
    partition = _resolved(given["partition"])

    def wait() -> str:
        settings = load_settings()
        end = time.monotonic() + 60 * settings.limits.wait_timeout_minutes
        while (found := arrived(partition)) is None:
            if time.monotonic() > end:
                raise MissingPartitions(
                    f"{partition} did not arrive at '{settings.data.address}' within "
                    f"{settings.limits.wait_timeout_minutes:g} minutes: deliver it, or raise "
                    "wait_timeout_minutes in [limits]"
                )
            log.info("%s is not there yet", partition)
            time.sleep(settings.limits.wait_interval_seconds)
        return found

    return {"Output": Try(given["pipeline"], _key(given), name, partition)(wait)}


def _resolved(partition: str) -> str:
    # The step itself reports settings that cannot be read.
    with contextlib.suppress(PipelineError):
        if partition == PREVIOUS:
            return load_settings().data.cadence.last_ended(datetime.now(UTC))
    return partition


def start(name: str, given: dict[str, str]) -> Values:
    """Open the MLflow run of this run; each links to the other."""
    pipeline, partition, key = given["pipeline"], given["partition"], _key(given)

    def open_run() -> tuple[Values, str]:
        from ...core import tracking

        run = run_stage("start", pipeline, partition, key, run_page(given["run_id"]))
        # The last step is given nothing by other steps, so that it runs whatever they do.
        storage.write_text(_folder(key) / "run.json", json.dumps(run))
        return run, tracking.run_url(run["tracking_run_id"])

    run, url = Try(pipeline, key, name, partition)(open_run)
    return {"reference": run, "mlflow": f"[{pipeline} of {partition} in MLflow]({url})\n"}


def finish(name: str, given: dict[str, str]) -> Values:
    """Write the report, close the MLflow run, and alert once if anything failed, except by Ctrl-C.

    Raises:
        SystemExit: The report could not be written.
    """
    pipeline, key = given["pipeline"], _key(given)
    status: Values = {}
    with contextlib.suppress(ValueError):
        status = json.loads(given["status"])
    run: Values | None = None
    # Storage may be what failed; the team is alerted in any case.
    with contextlib.suppress(Exception):
        run = json.loads((_folder(key) / "run.json").read_text())
    step = Try(pipeline, key, name, run["partition"] if run else given["partition"])
    report: Values | None = None
    if run is not None:
        # The report knows stages, and their candidates and windows by their records.
        failed = [f"{each.event.stage}".partition("-")[0] for each in read_failures(key)]
        with contextlib.suppress(SystemExit):
            report = step(lambda: run_stage("report", run, failed))
    failures = read_failures(key)
    if not failures and _failed_silently(pipeline, given["run_id"], status, report):
        failures = _recorded(step) or [step.failure(_reason(status), stage="a step")]
    interrupted = status.get("state") == INTERRUPTED
    if failures and not interrupted and not _already_alerted(key):
        url = alerts.run_url(run["tracking_run_id"] if run else None)
        alerts.send(failures[0].event.model_copy(update={"tracking_url": url}))
    with contextlib.suppress(Exception):
        # Somebody may repair a failed run by hand and run its steps again.
        for file in _failure_files(key):
            file.unlink()
    if report is None:
        if run is not None:
            raise SystemExit(1)
        return {"page": "No MLflow run was opened, so there is no report.\n"}
    return {"page": storage.path_of(report["uri"]).read_text(encoding="utf-8")}


STEPS: dict[str, Callable[[str, dict[str, str]], Mapping[str, Any]]] = {
    "wait_for_partition": wait_for_partition,
    "start": start,
    "finish": finish,
}


# --- trying, and failing -----------------------------------------------------------------------


class Failure(BaseModel):
    """Why a step failed for good, and when."""

    at: datetime
    event: alerts.Event


@dataclass(frozen=True)
class Try:
    """Runs the work of a step, with retries.

    Attributes:
        label: The step, as in the run's records.
        partition: Its partition; empty where it is not known yet.
    """

    pipeline: str
    key: str
    label: str
    partition: str

    def __call__(self, work: Callable[[], T]) -> T:
        """Do the work; try again after a pause that doubles, unless that cannot help.

        Raises:
            SystemExit: It failed for good, now or in a process before this one.
        """
        self._refuse_what_failed_for_good()
        number = 0
        while True:
            number += 1
            try:
                return work()
            except Exception as error:
                if isinstance(error, PipelineError) or number > load_settings().limits.retries:
                    log.exception("%s failed for good, in try %d", self.label, number)
                    self._keep(self.failure(error, number))
                    raise SystemExit(1) from None
                seconds = retry_delay(number)
                text = "%s: try %d failed, next in %g s"
                log.warning(text, self.label, number, seconds, exc_info=error)
                time.sleep(seconds)

    def failure(
        self, error: BaseException | str, number: int | None = None, stage: str | None = None
    ) -> Failure:
        """Return what the alert will say."""
        event = alerts.Event.of_failure(
            error,
            pipeline=self.pipeline,
            stage=stage or self.label,
            partition=self.partition or "newest",
            run_key=self.key,
            try_number=number,
            log_url=run_page(self.key.removeprefix(f"{self.pipeline}-")),
        )
        return Failure(at=datetime.now(UTC), event=event)

    def _refuse_what_failed_for_good(self) -> None:
        """End at once where Kubeflow tries a step again that must not be tried again."""
        with contextlib.suppress(PipelineError, OSError):
            if (_folder(self.key) / f"failed-{self.label}.json").exists():
                log.error("%s failed for good before", self.label)
                raise SystemExit(1)
            if self.label != "finish" and timed_out(self.key):
                log.error("a step of this run was ended at its time limit before")
                raise SystemExit(EXIT_CODE)

    def _keep(self, failure: Failure) -> None:
        try:
            path = _folder(self.key) / f"failed-{self.label}.json"
            storage.write_text(path, failure.model_dump_json())
        except Exception:  # the last step finds no file, and says so
            log.exception("the failure could not be kept")


def retry_delay(number: int) -> float:
    """Return the seconds to wait after a failed try, counted from 1."""
    seconds = load_settings().limits.retry_delay_seconds * 2.0 ** (number - 1)
    return min(seconds, MAX_RETRY_DELAY_SECONDS)


def read_failures(key: str) -> list[Failure]:
    """Return what failed for good in a run, first things first; empty where nothing can be read."""
    with contextlib.suppress(Exception):
        failures = [Failure.model_validate_json(file.read_text()) for file in _failure_files(key)]
        return sorted(failures, key=lambda failure: failure.at)
    return []


def run_page(run_id: str) -> str | None:
    """Return the address of a run in Kubeflow's UI, where there is one."""
    base = os.environ.get("KFP_UI_URL", "").rstrip("/")
    return f"{base}/#/runs/details/{run_id}" if base else None


def _key(given: dict[str, str]) -> str:
    return key_of_run(given["pipeline"], given["run_id"])


def _folder(key: str) -> UPath:
    return storage.artifact_path("runs", key, "kubeflow")


def _failure_files(key: str) -> list[UPath]:
    folder = _folder(key)
    return list(folder.glob("failed-*.json")) if folder.is_dir() else []


def _already_alerted(key: str) -> bool:
    with contextlib.suppress(Exception):
        return timed_out(key)
    return False


def _failed_silently(pipeline: str, run_id: str, status: Values, report: Values | None) -> bool:
    """Return whether a run failed although no step kept a failure, as when a pod was evicted."""
    if report is None or not report["succeeded"]:
        return True
    if status.get("state") in (None, "SUCCEEDED"):
        return False
    # A training that monitoring asked for has its own report.
    training = key_of_run("training", run_id)
    recorded = (
        {record.stage for record in read_records(training)} if pipeline == "inference" else set()
    )
    return "report" not in recorded


def _recorded(step: Try) -> list[Failure]:
    """Return what the stages' records say about a run without kept failures, like a signal."""
    with contextlib.suppress(Exception):
        ended = [one for one in read_records(step.key) if one.error]
        return [step.failure(f"{one.error}", stage=one.label) for one in ended]
    return []


def _reason(status: Values) -> PipelineError | str:
    """Return why a run without kept failures failed."""
    try:
        # Without settings no step knows where to keep one.
        load_settings()
    except PipelineError as error:
        return error
    return (status.get("error") or {}).get("message") or "a step ended without a word"


if __name__ == "__main__":
    main(sys.argv[1:])
