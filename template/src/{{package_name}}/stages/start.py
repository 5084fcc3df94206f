"""start: decide which partition the run is about and open its MLflow run."""

from __future__ import annotations

import secrets
from datetime import UTC, date, datetime

from .. import alerts
from ..core import shared_state, storage, tracking
from ..core.deadline import deadline
from ..core.errors import BadInput, StageTimeout
from ..core.logs import get_logger
from ..core.refs import Pipeline, Run
from ..core.settings import load_settings
from ..sources.files import newest_partition

log = get_logger(__name__)


def start(
    pipeline: Pipeline,
    partition: date | str | None = None,
    key: str | None = None,
    engine_url: str | None = None,
) -> Run:
    """Begin a run.

    Args:
        pipeline: Which graph is about to run.
        partition: The day, as a date or in ISO format; the newest of the source when None.
        key: The engine's name of the run; a new one is made up when None. Starting the same key
            again continues the same MLflow run.
        engine_url: The engine's page of the run, to be linked from MLflow.

    Raises:
        SettingsError: Distributed workers would write to one machine's disk.
        MissingPartitions: The source holds no partition at all.
        BadInput: `partition` is not a date.
    """
    if key is None:
        key = f"{pipeline}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"

    def alert(error: StageTimeout) -> None:
        alerts.send_failure(
            error, pipeline=pipeline, stage="start", partition=partition, run_key=key
        )

    settings = load_settings()
    with deadline("start", 60 * settings.limits.stage_timeout_minutes, alert):
        shared_state.require_shared_state()
        day = newest_partition(settings) if partition is None else _as_date(partition)
        storage.sweep_temporary()
        run = Run(pipeline=pipeline, partition=day, key=key, tracking_run_id="", settings=settings)
        run = run.model_copy(update={"tracking_run_id": tracking.open_run(run, engine_url)})
    log.info("run %s of partition %s: %s", key, day, tracking.run_url(run.tracking_run_id))
    return run


def _as_date(text: date | str) -> date:
    if isinstance(text, date):
        return text
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BadInput(f"partition '{text}' is not a date like 2013-01-28") from None
