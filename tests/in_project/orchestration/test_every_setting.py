"""Every setting is obeyed: by the stages, and by the graph of the project's engine.

Two tables: a value for each setting of the model, and what each engine's graph makes of those that
a graph is made of. A new setting fails here until it has its rows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import flight_delays
import pytest
import sandbox
from flight_delays.core.errors import SettingsError
from flight_delays.core.settings import Settings, load_settings
from pydantic import BaseModel, SecretStr

# None of these is the default.
VALUES: dict[str, Any] = {
    "project.name": "Other name",
    "project.slug": "other-slug",
    "project.owner": "other-team",
    "data.kind": "table",
    "data.source": "data/elsewhere",
    "data.cadence": "week",
    "data.file": "part={partition}/{partition}.csv",
    "data.marker": "{partition}.done",
    "data.settle_seconds": 5.5,
    "data.query": "SELECT 1",
    "data.time_zone": "Asia/Tokyo",
    "data.week_start": "sunday",
    "data.storage_options": {"key": "abc"},
    "data.csv.separator": ";",
    "data.csv.decimal_comma": True,
    "data.csv.encoding": "latin-1",
    "data.csv.null_values": ["", "NA"],
    "data.csv.date_format": "%m/%d/%Y",
    "data.reference": {
        "airports": {
            "kind": "file",
            "source": "airports.csv",
            "query": "",
            "storage_options": {"key": "abc"},
        }
    },
    "data.labels": {
        "kind": "sql",
        "source": "sqlite:///labels.db",
        "query": "SELECT 1",
        "storage_options": {},
    },
    "validation.min_rows": 3,
    "validation.min_rows_share": 0.2,
    "validation.few_rows": "reject",
    "validation.max_invalid_share": 0.5,
    "validation.max_null_share": 0.6,
    "validation.max_shift_psi": 2.5,
    "validation.max_rows": 1_000,
    "validation.max_megabytes": 100.5,
    "validation.max_line_megabytes": 1.5,
    "training.window": 20,
    "training.wider_window": 40,
    "training.split": "random",
    "training.holdout": 3,
    "training.gap": 2,
    "training.holdout_share": 0.4,
    "training.min_labelled_share": 0.7,
    "training.min_partitions_share": 0.8,
    "training.candidates": ["xgboost", "linear"],
    "training.trials": 9,
    "training.seed": 11,
    "training.threads": 2,
    "gates.metrics": {"roc_auc": {"min": 0.6, "max": None}},
    "gates.min_improvement": 0.25,
    "gates.min_above_baseline": 0.1,
    "monitoring.window": 4,
    "monitoring.max_psi": 0.2,
    "monitoring.max_drifted_share": 0.3,
    "schedule.training": "17 5 * * 1",
    "schedule.inference": "18 6 * * *",
    "schedule.time_zone": "Europe/Berlin",
    "schedule.start_date": date(2022, 5, 1),
    "schedule.end_date": date(2022, 6, 1),
    "schedule.catchup": True,
    "limits.retries": 4,
    "limits.retry_delay_seconds": 7,
    "limits.stage_timeout_minutes": 12.0,
    "limits.wait_timeout_minutes": 90.0,
    "limits.wait_interval_seconds": 45.0,
    "storage.root": "elsewhere",
    "storage.keep_days": 30,
    "workers.distributed": True,
    "logging.level": "DEBUG",
    "logging.json_lines": True,
}
# What a graph is made of, before any stage runs. A stage reads all others itself.
OF_GRAPHS = [
    *("project.slug", "project.owner", "data.cadence", "data.time_zone", "training.candidates"),
    *(name for name in VALUES if name.startswith(("schedule.", "limits."))),
    "logging.level",
]
REFUSED = "refused by name"


def names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield each setting of a model by the name that a file gives it."""
    for name, field in model.model_fields.items():
        whole = f"{prefix}{field.alias or name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from names(field.annotation, f"{whole}.")
        else:
            yield whole


def in_toml(value: Any) -> str:
    if isinstance(value, dict):
        pairs = [f"{key} = {in_toml(item)}" for key, item in value.items() if item is not None]
        return f"{{ {', '.join(pairs)} }}"
    return f"{value}" if isinstance(value, date) else json.dumps(value)


def in_environment(name: str, value: Any) -> dict[str, str]:
    text = value if isinstance(value, str) else in_toml(value)
    if isinstance(value, dict):
        text = json.dumps(value)
    return {f"PIPELINE_{name.upper().replace('.', '__')}": text}


def found(name: str, settings: Settings) -> Any:
    """Return the value of a setting."""
    value: Any = settings
    for part in name.replace("cadence", "unit").split("."):
        value = getattr(value, part)
    return plain(value)


def plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return plain(value.model_dump())
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def test_every_setting_has_a_row() -> None:
    assert list(VALUES) == list(names(Settings))


@pytest.mark.parametrize("name", VALUES)
def test_a_setting_is_obeyed_from_the_file_and_the_environment_and_dot_env(
    name: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = VALUES[name]
    monkeypatch.delenv("PIPELINE_WORKERS__DISTRIBUTED")
    config = project / "config" / "pipeline.toml"
    config.write_text("")
    assert found(name, load_settings()) != value

    config.write_text(f"{name} = {in_toml(value)}\n")
    sandbox.clear_caches()
    assert found(name, load_settings()) == value

    config.write_text("")
    [(variable, text)] = in_environment(name, value).items()
    (project / ".env").write_text(f"{variable}='{text}'\n")
    sandbox.clear_caches()
    assert found(name, load_settings()) == value

    (project / ".env").unlink()
    monkeypatch.setenv(variable.lower(), text)
    monkeypatch.delenv(variable)
    sandbox.clear_caches()
    assert found(name, load_settings()) == value


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('schedule.training = "every day"', 'a cron expression of five fields, like "0 6 * * 1"'),
        ('schedule.inference = "@daily"', "a cron expression of five fields"),
        ('logging.level = "LOUD"', "must be DEBUG, INFO, WARNING, ERROR or CRITICAL"),
        ('training.candidates = ["linear", "linear"]', "each candidate once, not linear again"),
        ('data = { kind = "python", storage_options = { key = "abc" } }', "not for kind"),
        ("schedule.end_date = 2019-12-31", "must not lie before start_date (2020-01-01)"),
        ('data.file = "rows.parquet"', "must contain {partition}"),
        ('data.file = "{partition}.xlsx"', "must end in one of .parquet"),
    ],
)
def test_a_setting_that_can_never_work_is_refused_by_name(
    project: Path, line: str, complaint: str
) -> None:
    (project / "config" / "pipeline.toml").write_text(line)
    sandbox.clear_caches()
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert f"{line.partition(' ')[0]}: " in str(caught.value)
    assert complaint in str(caught.value)


# --- what the graphs make of them: each engine's graph_settings.py reads it, loaded anew ----------


[NAME] = {
    path.parent.name
    for path in Path(flight_delays.__file__).parent.glob("orchestration/*/__init__.py")
}
# Where a graph shows another word than the setting's own.
SHOWN: dict[str, dict[str, Any]] = {
    "airflow": {"project.slug": "other-slug-new-champion", "data.cadence": False},
    "dagster": {"data.cadence": "WeeklyPartitionsDefinition"},
}


# Kubeflow's compiler takes half a minute, and both reach it by the same way.
@pytest.mark.parametrize("place", ["file", "environment"][NAME == "kubeflow" :])
@pytest.mark.timeout(600)
def test_the_engine_s_graph_is_made_of_the_settings(place: str, project: Path) -> None:
    (project / "config" / "pipeline.toml").write_text("")
    values = {name: VALUES[name] for name in OF_GRAPHS}
    variables: dict[str, str] = {}
    for name, value in values.items():
        variables |= in_environment(name, value)
    if place == "file":
        lines = [f"{name} = {in_toml(value)}" for name, value in values.items()]
        (project / "config" / "pipeline.toml").write_text("\n".join(lines))
    environment = {
        name: text for name, text in os.environ.items() if not name.startswith("PREFECT_")
    }
    done = subprocess.run(
        [sys.executable, Path(__file__).parent / NAME / "graph_settings.py"],
        env=environment
        | (variables if place == "environment" else {})
        | {"AIRFLOW_HOME": str(project / "var"), "AIRFLOW__CORE__LOAD_EXAMPLES": "false"}
        | {"PYTHONPATH": os.pathsep.join([str(sandbox.CHECKOUT), *sys.path])},
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    shown = json.loads(done.stdout.splitlines()[-1])

    assert list(shown) == OF_GRAPHS
    expected = {
        name: f"{value}" if isinstance(value, date) else value for name, value in values.items()
    }
    expected |= SHOWN.get(NAME, {})
    said = {name: value for name, value in shown.items() if value not in (REFUSED, None)}
    assert said == {name: expected[name] for name in said}
