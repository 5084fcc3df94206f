"""Print what Prefect's flows and deployments make of the settings."""

from __future__ import annotations

import json
import logging
import os
import runpy
from typing import Any
from unittest import mock

import sandbox
from flight_delays.core.errors import SettingsError
from flight_delays.core.settings import load_settings
from flight_delays.orchestration.prefect import local, tasks

REFUSED = "refused by name"


def shown() -> dict[str, Any]:
    """Return each setting's value in the graph; None where the graph does not ask for it."""
    flows = {
        name: runpy.run_path(f"{sandbox.CHECKOUT}/flows/{name}.py") for name in local.PIPELINES
    }
    ingest: Any = tasks.ingest
    wait: Any = tasks.wait_for_partition
    trained = mock.Mock()
    shared = flows["training"]["train_and_evaluate"].__globals__
    stubs = {name: mock.Mock() for name in ("validate", "ingest", "featurize", "select")}
    stubs |= {"evaluate": mock.Mock(), "take_own_steps": mock.Mock(), "train": trained}
    with mock.patch.dict(shared, stubs):
        shared["train_and_evaluate"]({}, "normal")
    try:
        local.deploy()
        caught_up = "silently"
    except SettingsError as error:
        caught_up = REFUSED if "[schedule] catchup" in f"{error}" else f"{error}"
    os.environ["PIPELINE_SCHEDULE__CATCHUP"] = "false"
    load_settings.cache_clear()
    try:
        local.deploy()
        ended = "silently"
    except SettingsError as error:
        ended = REFUSED if "[schedule] end_date" in f"{error}" else f"{error}"
    options = []
    with (
        mock.patch.object(local, "refuse_dates"),
        mock.patch.object(local, "_prefect", lambda *given, cwd: options.append(given)),
    ):
        local.deploy()
    crons = {given[3]: dict(zip(given[4::2], given[5::2], strict=True)) for given in options[1:]}
    level = logging.getLogger("flight_delays").getEffectiveLevel()
    return {
        "project.slug": next(iter(ingest.tags)),
        "project.owner": None,
        "data.cadence": None,
        "data.time_zone": None,
        "training.candidates": trained.map.call_args.args[2],
        "schedule.training": crons["training"]["--cron"],
        "schedule.inference": crons["inference"]["--cron"],
        "schedule.time_zone": crons["inference"]["--timezone"],
        "schedule.start_date": None,
        "schedule.end_date": ended,
        "schedule.catchup": caught_up,
        "limits.retries": ingest.retries,
        "limits.retry_delay_seconds": ingest.retry_delay_seconds[0],
        "limits.stage_timeout_minutes": ingest.timeout_seconds / 60,
        "limits.wait_timeout_minutes": wait.retries * wait.retry_delay_seconds / 60,
        "limits.wait_interval_seconds": wait.retry_delay_seconds,
        "logging.level": logging.getLevelName(level),
    }


print(json.dumps(shown()))
