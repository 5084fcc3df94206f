"""Print what Dagster's definitions make of the settings."""

from __future__ import annotations

import json
from datetime import date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
from flight_delays import definitions
from flight_delays.core.settings import load_settings
from flight_delays.defs import jobs
from flight_delays.orchestration.dagster import instance


def shown() -> dict[str, Any]:
    """Return each setting's value in the graph; None where the graph does not ask for it."""
    configuration: Any = instance.configuration()
    # Its classes are those of any graph.
    repository: Any = definitions.defs.get_repository_def()
    asset = repository.assets_defs_by_key[dg.AssetKey(["inference", "raw"])]
    [spec] = asset.specs
    partitions = spec.partitions_def
    made = [key.path[-1] for key in repository.assets_defs_by_key if "window" in key.path]
    policy = asset.op.retry_policy
    schedules = {one.name: one for one in repository.schedule_defs}
    begun = []
    for day in (date(2022, 6, 1), date(2022, 6, 2)):
        tick = datetime.combine(day, time(6), ZoneInfo("Europe/Berlin"))
        context = dg.build_schedule_context(scheduled_execution_time=tick)
        if isinstance(schedules["inference_schedule"](context), dg.RunRequest):
            begun.append(day)
    arrival = repository.get_sensor_def("new_partition")
    limits, candidates = load_settings().limits, load_settings().training.candidates
    stages = jobs.STEPS_IN_A_ROW * (1 + limits.retries) * limits.stage_timeout_minutes
    longest = float(repository.get_job("training").tags["dagster/max_runtime"]) / 60
    return {
        "project.slug": spec.tags["project"],
        "project.owner": spec.owners[0].removeprefix("team:"),
        "data.cadence": type(partitions).__name__,
        "data.time_zone": partitions.timezone,
        "training.candidates": [name for name in candidates if name in made],
        "schedule.training": schedules["training_schedule"].cron_schedule,
        "schedule.inference": schedules["inference_schedule"].cron_schedule,
        "schedule.time_zone": schedules["inference_schedule"].execution_timezone,
        "schedule.start_date": f"{partitions.start.date()}",
        "schedule.end_date": f"{max(begun)}",
        "schedule.catchup": arrival.default_status is dg.DefaultSensorStatus.RUNNING,
        "limits.retries": policy.max_retries,
        "limits.retry_delay_seconds": policy.delay,
        "limits.stage_timeout_minutes": (longest - limits.wait_timeout_minutes) / stages * 12,
        "limits.wait_timeout_minutes": longest - stages,
        "limits.wait_interval_seconds": arrival.minimum_interval_seconds,
        "logging.level": configuration["python_logs"]["python_log_level"],
    }


print(json.dumps(shown()))
