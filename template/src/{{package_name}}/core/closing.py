"""MLflow runs whose process died silently; the next run closes them with the reason."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from . import tracking
from .attempt import attempt
from .logs import get_logger
from .records import read_records
from .refs import Run
from .settings import Limits

if TYPE_CHECKING:
    from mlflow.entities import Run as TrackedRun

log = get_logger(__name__)

# The process that a whole run happens in; most runs of an engine have none.
OWNER_TAG = "pipeline.process"
# That process, see `this_process`; set by a runner whose runs each happen in one process.
owner = ""
REASON_TAG = "pipeline.closed_because"
AT_ONCE = 20
SECONDS = 10.0


def this_process() -> str:
    """Return an identifier of this process, unique across machines; empty outside Linux."""
    return _process("self")


def own(run: Run) -> None:
    """Note which process a run happens in; a reopened run may have had another."""
    tracking.client().set_tag(run.tracking_run_id, OWNER_TAG, owner)


def close_what_died(run: Run) -> None:
    """Close runs that died, and their candidates', as killed; never raises, and has a time limit.

    A run in one process is dead when that process is gone, which only its own machine can check.
    Any other run is dead when no stage has ended within the time that one may take, including all
    retries and the wait for data: a run that lives longer only shows as killed until its report.

    Args:
        run: The one that is starting.
    """
    [outcome] = attempt({"closing": lambda: _close_what_died(run)}, SECONDS).values()
    if isinstance(outcome, BaseException):
        log.warning("runs that died are not closed yet: %s: %s", type(outcome).__name__, outcome)


def close_children(run_id: str) -> None:
    """Close the child runs that are still open below a run that failed."""
    condition = f"tags.`{tracking.PARENT_TAG}` = '{run_id}' and attributes.status = 'RUNNING'"
    for child in tracking.client().search_runs([tracking.experiment_id()], condition):
        tracking.client().set_terminated(child.info.run_id, "KILLED")


def _close_what_died(run: Run) -> None:
    condition = f"tags.`{tracking.CHILD_TAG}` = '' and attributes.status = 'RUNNING'"
    oldest_first = ["attributes.start_time ASC"]
    running = tracking.client().search_runs(
        [tracking.experiment_id()], condition, max_results=AT_ONCE, order_by=oldest_first
    )
    for other in running:
        if other.info.run_id == run.tracking_run_id:
            continue
        seen = _last_seen(other)
        if why := _why_dead(other, seen, run.settings.limits):
            _close(other.info.run_id, f"{why}; closed when {run.key} began", seen)


def _last_seen(other: TrackedRun) -> datetime:
    records = read_records(other.data.tags.get(tracking.RUN_KEY_TAG, ""))
    ends = [one.started + timedelta(seconds=one.seconds) for one in records]
    return max([datetime.fromtimestamp(other.info.start_time / 1000, UTC), *ends])


def _why_dead(other: TrackedRun, seen: datetime, limits: Limits) -> str:
    """Return why a run is considered dead; empty if it may be alive."""
    process, machine = other.data.tags.get(OWNER_TAG, ""), this_process().rpartition("/")[0]
    if machine and process.rpartition("/")[0] == machine:
        pid = process.rpartition("/")[2].partition("-")[0]
        return "" if _process(pid) == process else f"its process {pid} ended without a word"
    # The longest pause after the longest try, times the number of retries.
    pause = limits.retry_delay_seconds * 2 ** min(limits.retries, 10)
    a_try = timedelta(minutes=limits.stage_timeout_minutes, seconds=pause)
    most = a_try * (limits.retries + 1) + timedelta(minutes=limits.wait_timeout_minutes)
    if datetime.now(UTC) - seen < most:
        return ""
    return f"no stage of it has ended since {seen:%Y-%m-%d %H:%M} UTC"


def _close(run_id: str, why: str, seen: datetime) -> None:
    client = tracking.client()
    # Meanwhile, it may have ended, or another run may have closed it.
    if client.get_run(run_id).info.status != "RUNNING":
        return
    client.set_tag(run_id, REASON_TAG, why)
    close_children(run_id)
    client.set_terminated(run_id, "KILLED", end_time=int(1000 * seen.timestamp()))
    log.warning("MLflow run %s was left open: %s", run_id, why)


def _process(pid: str) -> str:
    """Return boot, process namespace, number and start of a process; empty where there is none."""
    proc = Path("/proc")
    try:
        boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
        # A container has its own process numbers.
        space = (proc / "self/ns/pid").readlink()
        number, _, rest = (proc / pid / "stat").read_text().partition(" ")
    except OSError:
        return ""
    # The name may hold anything; state, parent and so on come after it.
    state, *fields = rest.rpartition(") ")[2].split()
    # A zombie has ended.
    return "" if state == "Z" else f"{boot}/{space}/{number}-{fields[18]}"
