"""Print what Kubeflow's pipelines make of the settings."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from flight_delays.core.errors import SettingsError
from flight_delays.core.settings import load_settings
from flight_delays.orchestration.kubeflow import cluster, local, step
from kfp.compiler import Compiler

REFUSED = "refused by name"


def shown() -> dict[str, Any]:
    """Return each setting's value in the graph; None where the graph does not ask for it."""
    file = Path(os.environ["PIPELINE_HOME"]) / "inference.yaml"
    compiler = Compiler()
    compiler.compile(local.definition("inference").inference, str(file))
    specification, platform = yaml.safe_load_all(file.read_text())
    tasks = specification["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    policy = tasks["ingest"]["retryPolicy"]
    platforms = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    seconds = {name: int(one["activeDeadlineSeconds"]) for name, one in platforms.items()}
    pauses = sum(step.retry_delay(number) for number in range(1, 5))
    client = mock.MagicMock()
    try:
        cluster.publish({})
        caught_up = "silently"
    except SettingsError as error:
        caught_up = REFUSED if "[schedule] catchup" in f"{error}" else f"{error}"
    try:
        cluster.refuse_other_zones()
        zone = "silently"
    except SettingsError as error:
        zone = REFUSED if "[schedule] time_zone" in f"{error}" else f"{error}"
    os.environ["PIPELINE_SCHEDULE__TIME_ZONE"] = "UTC"
    load_settings.cache_clear()
    crons = [cluster.set_schedule(client, name, "pipeline", "version") for name in local.PIPELINES]
    given = client.create_recurring_run.call_args.kwargs
    trainings = step._next("featurize", {"run": {}}, {})
    return {
        "project.slug": specification["pipelineInfo"]["name"].removesuffix("-inference"),
        "project.owner": None,
        "data.cadence": None,
        "data.time_zone": None,
        "training.candidates": [one["candidate"] for one in trainings],
        "schedule.training": crons[0],
        "schedule.inference": crons[1],
        "schedule.time_zone": zone,
        "schedule.start_date": given["start_time"].partition("T")[0],
        "schedule.end_date": given["end_time"].partition("T")[0],
        "schedule.catchup": caught_up,
        "limits.retries": policy["maxRetryCount"],
        "limits.retry_delay_seconds": float(policy["backoffDuration"].rstrip("s")),
        "limits.stage_timeout_minutes": (seconds["exec-ingest"] - 600 - pauses) / 5 / 60 - 1,
        "limits.wait_timeout_minutes": (seconds["exec-wait-for-partition"] - 600) / 60,
        # Its step reads it itself.
        "limits.wait_interval_seconds": load_settings().limits.wait_interval_seconds,
        "logging.level": load_settings().logging.level,
    }


print(json.dumps(shown()))
