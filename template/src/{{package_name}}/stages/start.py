"""start: decide which partition the run is about and open its MLflow run."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

from .. import alerts
from ..core import closing, shared_state, storage, tracking
from ..core.cadence import Partition
from ..core.deadline import deadline
from ..core.errors import StageTimeout
from ..core.explain import explained
from ..core.logs import get_logger
from ..core.refs import Pipeline, Run
from ..core.settings import load_settings
from ..interface import advice, check_domain, load_problem
from ..sources import newest_partition

log = get_logger(__name__)


def start(
    pipeline: Pipeline,
    partition: Partition | None = None,
    key: str | None = None,
    engine_url: str | None = None,
) -> Run:
    """Begin a run, and deliver the alerts that earlier ones could not.

    Args:
        pipeline: Which graph is about to run.
        partition: Its name in the cadence's form; the newest of the source when None.
        key: The engine's name of the run; a new one is made up when None. Starting the same key
            again continues the same MLflow run.
        engine_url: The engine's page of the run, to be linked from MLflow.

    Raises:
        DomainError: A file of domain/ lacks something that the pipeline needs.
        SettingsError: Distributed workers would write to one machine's disk.
        MissingPartitions: The source holds no partition at all.
        BadInput: `partition` is not one of the cadence.
        NoAccess: MLflow's file or the disk cannot be written, or its server refuses the log-in.
    """
    if key is None:
        key = f"{pipeline}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"

    def alert(error: StageTimeout) -> None:
        alerts.send_failure(
            error, pipeline=pipeline, stage="start", partition=partition, run_key=key
        )

    settings = load_settings()
    with deadline("start", 60 * settings.limits.stage_timeout_minutes, alert), explained():
        shared_state.require_shared_state()
        check_domain()
        if pipeline == "training":
            load_problem().require(settings.training.candidates)
        if odd := advice():
            log.warning("%s", odd)
        if partition is None:
            chosen = newest_partition(settings)
        else:
            chosen = settings.data.cadence.parse(partition)
        storage.sweep_temporary()
        run = Run(
            pipeline=pipeline, partition=chosen, key=key, tracking_run_id="", settings=settings
        )
        # Noted as it is opened, so that the next run also closes one that dies at once.
        owner = {closing.OWNER_TAG: closing.owner}
        run_id = tracking.open_run(run, engine_url, owner)
        run = run.model_copy(update={"tracking_run_id": run_id})
        closing.own(run)
        closing.close_what_died(run)
    alerts.flush()
    log.info("run %s of partition %s: %s", key, chosen, tracking.run_url(run.tracking_run_id))
    return run
