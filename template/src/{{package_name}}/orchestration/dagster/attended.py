"""Runs that the command line waits for: it alerts and reports them, as sensors do all others."""

from __future__ import annotations

from typing import Any

import dagster as dg

from ... import definitions
from ...core.settings import load_settings
from ...defs.executor import executor
from ...defs.outcome import ATTENDED, alert_failure, report_of
from ...defs.partitions import CADENCE, PARTITIONS, key_of
from ...sources import newest_partition


def existing_partition(partition: str | None) -> str:
    """Return what Dagster calls a partition, the newest one where none is named.

    Raises:
        BadInput: It is not a partition of the cadence.
        SystemExit: Dagster knows no such partition.
    """
    wanted = CADENCE.parse(partition) if partition else newest_partition(load_settings())
    if not PARTITIONS.has_partition_key(key_of(wanted)):
        start = load_settings().schedule.start_date
        raise SystemExit(
            f"partition '{wanted}' is before {start}, [schedule] start_date, or in the future"
        )
    return key_of(wanted)


def execute(pipeline: str, partition: str) -> dg.DagsterRun:
    """Run a pipeline's job and then its report; returns the pipeline's run."""
    with dg.DagsterInstance.get() as instance:
        run = _execute(instance, pipeline, tags={"dagster/partition": partition})
        config = report_of(instance, run)
        if config is not None:
            _execute(instance, "report", config=config)
    return run


def job(name: str) -> dg.JobDefinition:
    """Return a job; each step's process also calls this."""
    return definitions.defs.resolve_job_def(name).with_executor_def(executor())


def _execute(
    instance: dg.DagsterInstance,
    name: str,
    config: dict[str, Any] | None = None,
    tags: dict[str, str] | None = None,
) -> dg.DagsterRun:
    loggers = {"console": {"config": {"log_level": "INFO"}}}
    result = dg.execute_job(
        dg.build_reconstructable_job(__name__, job.__name__, (name,)),
        instance,
        run_config={"loggers": loggers, **(config or {})},
        tags={ATTENDED: "true", **(tags or {})},
    )
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    if not result.success:
        alert_failure(instance, run, "the run failed outside its steps")
    return run
