"""Airflow with two Celery workers over PostgreSQL and Redis, artefacts and models in S3."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from receivers import free_port

from . import services
from .projects import Project, make_installed_project, training_result
from .test_airflow import TRAINING, Airflow, children_of, log_in, runs_of, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("airflow-workers"),
]


@dataclass
class Fleet:
    """Airflow's servers and two workers, and what a project needs to look at their work."""

    project: Project
    airflow: Airflow
    logs: list[Path]


@pytest.fixture(scope="module")
def fleet(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Run `poe up` and two times `poe worker` of a distributed project."""
    services.install()
    folder = tmp_path_factory.mktemp("fleet")
    project = make_installed_project(
        sources, folder / "project", tracking="mlflow_remote", workers="distributed"
    )
    project.edit_config("trials = 5 ", "trials = 2 ")
    with ExitStack() as stack:
        database = stack.enter_context(services.postgres(folder / "postgres"))
        broker = stack.enter_context(services.redis(folder))
        s3 = stack.enter_context(services.s3(folder))
        mlflow = stack.enter_context(
            services.mlflow_server(project.python, folder, s3, database.create("mlflow"))
        )
        airflow = database.create("airflow")
        project.environment = {
            **s3,
            "MLFLOW_TRACKING_URI": mlflow,
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{airflow}",
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+postgresql+psycopg2://{airflow}",
            "AIRFLOW__CELERY__BROKER_URL": broker,
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
            "AIRFLOW__API__PORT": f"{free_port()}",
        }
        uv_run = ["uv", "run", "--python", project.python, "poe"]
        log = folder / "up.log"
        up = stack.enter_context(
            services.running(
                [*uv_run, "up"], log, cwd=project.path, environment=project.environment
            )
        )
        wait_for(lambda: log_in(log, up), 240, "poe up to print the log-in")
        logs = []
        for number in range(2):
            logs.append(folder / f"worker-{number}.log")
            ports = {"AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": f"{free_port()}"}
            stack.enter_context(
                services.running(
                    [*uv_run, "worker"],
                    logs[-1],
                    cwd=project.path,
                    environment={**project.environment, **ports},
                )
            )
        yield Fleet(project, Airflow(_client(log, project)), logs)


def _client(log: Path, project: Project) -> httpx.Client:
    found = re.search(r"admin / (\S+)", log.read_text())
    assert found
    address = f"http://127.0.0.1:{project.environment['AIRFLOW__API__PORT']}"
    answer = httpx.post(
        f"{address}/auth/token", json={"username": "admin", "password": found[1]}, timeout=60
    )
    headers = {"Authorization": f"Bearer {answer.raise_for_status().json()['access_token']}"}
    return httpx.Client(base_url=f"{address}/api/v2", headers=headers, timeout=60)


def test_both_workers_work_and_the_result_is_that_of_one_machine(fleet: Fleet) -> None:
    fleet.airflow.pause(TRAINING, False)
    run = fleet.airflow.trigger(TRAINING, partition="2013-01-31")
    assert fleet.airflow.result(TRAINING, run) == "success"

    found = fleet.project.mlflow()
    assert found["aliases"] == {"champion": 1}
    [parent] = runs_of(found, "training")
    assert set(children_of(found, parent)) == {"linear", "random_forest", "xgboost"}
    done = [re.findall(r"succeeded in", log.read_text()) for log in fleet.logs]
    assert all(done), [log.read_text()[-2000:] for log in fleet.logs]
    # Nothing that steps share was written to this machine's disk.
    assert not (fleet.project.path / "var" / "artifacts").exists()
    assert not (fleet.project.path / "var" / "mlflow").exists()
    assert training_result(found) == training_result(fleet.project.run_alone("2013-01-31"))
