"""A distributed Prefect project: two workers that share nothing but servers.

Prefect's server on PostgreSQL, artefacts in S3, MLflow on a server.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from receivers import free_port

from ..support import services
from ..support.prefect import Prefect, process_of
from ..support.projects import (
    Project,
    children_of,
    make_installed_project,
    runs_of,
    training_result,
)
from ..support.stories import CANDIDATES, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass
class Cluster:
    """The project, its server, and the workers by their logs."""

    project: Project
    prefect: Prefect
    logs: list[Path]


@pytest.fixture(scope="module")
def cluster(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Run Prefect's server and two workers."""
    services.install()
    folder = tmp_path_factory.mktemp("prefect-workers")
    project = make_installed_project(
        sources,
        folder / "project",
        orchestrator="prefect",
        tracking="mlflow_remote",
        workers="distributed",
    )
    project.edit_config("trials = 5 ", "trials = 2 ")
    port = free_port()
    python = str(project.path / ".venv" / "bin" / "python")
    with contextlib.ExitStack() as stack:
        database, shared = stack.enter_context(services.shared_state(project.python, folder))
        project.environment = {
            **shared,
            # As in a container: the environment is this project's own.
            "PIPELINE_HOME": str(project.path),
            "PIPELINE_WORKERS__DISTRIBUTED": "true",
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "PREFECT_UI_URL": f"http://127.0.0.1:{port}",
        }
        server = stack.enter_context(
            services.running(
                [python, "-m", "prefect", "server", "start", "--port", port],
                folder / "server.log",
                environment={
                    "PREFECT_HOME": str(folder / "server"),
                    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                    "DO_NOT_TRACK": "true",
                    "PREFECT_SERVER_DATABASE_CONNECTION_URL": (
                        f"postgresql+asyncpg://{database.create('prefect')}"
                    ),
                },
            )
        )
        prefect = Prefect(f"http://127.0.0.1:{port}")
        services.wait_for_http(f"{prefect.address}/api/health", server, folder / "server.log")
        module = f"{project.package}.orchestration.prefect.local"
        project.run("python", "-m", module, "deploy")
        logs = [folder / f"worker-{number}.log" for number in (1, 2)]
        for log in logs:
            stack.enter_context(
                services.running(
                    [python, "-m", f"{project.package}.orchestration.prefect.workers"],
                    log,
                    cwd=project.path,
                    environment=project.environment | {"PREFECT_HOME": str(log.with_suffix(""))},
                )
            )
        for log in logs:
            wait_for(functools.partial(started, log), 300, "a worker")
        yield Cluster(project, prefect, logs)


def started(log: Path) -> bool | None:
    """Return whether a worker says that it has started."""
    return "started!" in log.read_text() or None


def test_two_workers_train_and_score_and_give_what_one_process_gives(cluster: Cluster) -> None:
    training = cluster.prefect.launch("training", partition="2013-01-31")
    assert cluster.prefect.result(training)["state_name"] == "Completed"
    mlflow = cluster.project.mlflow()
    [parent] = runs_of(mlflow, "training")
    assert parent["status"] == "FINISHED"
    assert set(children_of(mlflow, parent)) == CANDIDATES
    assert mlflow["aliases"] == {"champion": 1}
    assert training_result(mlflow) == training_result(cluster.project.run_alone("2013-01-31"))

    # Both deployments at once: each worker has something to do, or one does both.
    runs = [
        cluster.prefect.launch("inference", partition="2013-02-01"),
        cluster.prefect.launch("training", partition="2013-02-01"),
    ]
    for run in runs:
        assert cluster.prefect.result(run)["state_name"] == "Completed"
    assert not (cluster.project.path / "var" / "artifacts").exists()


def test_a_run_whose_process_is_killed_is_taken_up_again(cluster: Cluster) -> None:
    run = cluster.prefect.launch("training", partition="2013-02-02")
    wait_for(lambda: process_of(cluster.prefect, run), 300, "the run's process").kill()
    ended = cluster.prefect.result(run)
    assert ended["state_name"] == "Completed"
    assert ended["run_count"] == 2
    parent = runs_of(cluster.project.mlflow(), "training")[0]
    assert parent["tags"]["pipeline.run_key"] == f"training-{run}"
    assert parent["status"] == "FINISHED"
