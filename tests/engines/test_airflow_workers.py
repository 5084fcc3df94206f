"""Airflow with two Celery workers over PostgreSQL and Redis, artefacts and models in S3."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from receivers import free_port

from ..support import services
from ..support.airflow import TRAINING, Airflow, log_in, open_client
from ..support.projects import Project, make_installed_project
from ..support.stories import assert_two_workers_trained, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


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
        database, shared = stack.enter_context(services.shared_state(project.python, folder))
        broker = stack.enter_context(services.redis(folder))
        airflow = database.create("airflow")
        project.environment = {
            **shared,
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
        yield Fleet(
            project, Airflow(open_client(log, project.environment["AIRFLOW__API__PORT"])), logs
        )


def test_both_workers_work_and_the_result_is_that_of_one_machine(fleet: Fleet) -> None:
    fleet.airflow.pause(TRAINING, False)
    run = fleet.airflow.trigger(TRAINING, partition="2013-01-31")
    assert fleet.airflow.result(TRAINING, run) == "success"
    assert_two_workers_trained(fleet.project, fleet.logs)
