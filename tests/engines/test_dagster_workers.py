"""Dagster with two Celery workers over PostgreSQL and Redis, artefacts and models in S3."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from receivers import free_port

from ..support import services
from ..support.dagster import Dagster
from ..support.projects import Project, make_installed_project
from ..support.stories import assert_two_workers_trained, ready, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass
class Fleet:
    """Dagster's servers and two workers, and what a project needs to look at their work."""

    project: Project
    dagster: Dagster
    logs: list[Path]


@pytest.fixture(scope="module")
def fleet(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Run `poe up`, which starts a worker, and one more `poe worker` of a distributed project."""
    services.install()
    folder = tmp_path_factory.mktemp("fleet")
    answers = {"orchestrator": "dagster", "tracking": "mlflow_remote", "workers": "distributed"}
    project = make_installed_project(sources, folder / "project", **answers)
    project.edit_config("trials = 5 ", "trials = 2 ")
    with ExitStack() as stack:
        database, shared = stack.enter_context(services.shared_state(project.python, folder))
        broker = stack.enter_context(services.redis(folder))
        port = free_port()
        project.environment = {
            **shared,
            "DAGSTER_PORT": f"{port}",
            "DAGSTER_POSTGRES_URL": f"postgresql+psycopg2://{database.create('dagster')}",
            "DAGSTER_CELERY_BROKER_URL": broker,
            "DAGSTER_CELERY_BACKEND_URL": broker,
        }
        uv_run = ["uv", "run", "--python", project.python, "poe"]

        def start(name: str) -> tuple[subprocess.Popen[bytes], Path]:
            log = folder / f"{name}.log"
            variables = project.environment
            running = services.running(
                [*uv_run, name], log, cwd=project.path, environment=variables
            )
            return stack.enter_context(running), log

        up, log = start("up")
        wait_for(lambda: ready(log, up), 240, "poe up to print the addresses")
        _, second = start("worker")
        first = project.path / "var" / "log" / "worker.log"
        logs = [first, second]

        def both_are_ready() -> bool | None:
            return all(log.exists() and " ready." in log.read_text() for log in logs) or None

        wait_for(both_are_ready, 300, "both workers")
        yield Fleet(project, Dagster(f"http://127.0.0.1:{port}"), logs)


def test_both_workers_work_and_the_result_is_that_of_one_machine(fleet: Fleet) -> None:
    run = fleet.dagster.launch("training", "2013-01-31")
    assert fleet.dagster.result("training", run) == "SUCCESS"
    assert_two_workers_trained(fleet.project, fleet.logs)
