"""Print what Airflow's DAGs make of the settings."""

from __future__ import annotations

import json
import logging
from typing import Any
from zoneinfo import ZoneInfo

import sandbox
from airflow.dag_processing.dagbag import DagBag


def shown() -> dict[str, Any]:
    """Return each setting's value in the graph; None where the graph does not ask for it."""
    bag = DagBag(str(sandbox.CHECKOUT / "dags"))
    assert not bag.import_errors, bag.import_errors
    # Their classes are those of many kinds of graphs.
    dags: dict[str, Any] = {name.rpartition("_")[2]: dag for name, dag in bag.dags.items()}
    training, inference = dags["training"], dags["inference"]
    wait, ingest = inference.get_task("wait_for_partition"), inference.get_task("ingest")
    [champion] = training.get_task("promote").outlets
    train = training.get_task("window.train")
    level = logging.getLogger("flight_delays").getEffectiveLevel()
    zone = ZoneInfo(inference.timetable.timezone)
    return {
        "project.slug": champion.name,
        "project.owner": ingest.owner,
        "data.cadence": "format" in inference.params.get_param("partition").schema,
        "data.time_zone": None,
        "training.candidates": train.op_kwargs_expand_input.value["candidate"],
        "schedule.training": training.timetable.timetable.expression,
        "schedule.inference": inference.timetable.expression,
        "schedule.time_zone": inference.timetable.timezone,
        "schedule.start_date": f"{inference.start_date.astimezone(zone).date()}",
        "schedule.end_date": f"{inference.end_date.astimezone(zone).date()}",
        "schedule.catchup": inference.catchup,
        "limits.retries": ingest.retries,
        "limits.retry_delay_seconds": ingest.retry_delay.total_seconds(),
        "limits.stage_timeout_minutes": ingest.execution_timeout.total_seconds() / 60,
        "limits.wait_timeout_minutes": wait.timeout / 60,
        "limits.wait_interval_seconds": wait.poke_interval,
        "logging.level": logging.getLevelName(level),
    }


print(json.dumps(shown()))
