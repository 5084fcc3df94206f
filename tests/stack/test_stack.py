"""The stack: a project's Dockerfile and compose files as they are, in a Docker engine of our own.

Which images are real and which stand in: stand_ins.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from dotenv import dotenv_values
from receivers import Webhook, free_port, webhook

from ..support.airflow import Airflow, connect
from ..support.dagster import Dagster
from ..support.docker import GATEWAY, docker_engine
from ..support.prefect import Prefect
from ..support.projects import (
    Project,
    children_of,
    make_installed_project,
    runs_of,
    training_result,
)
from ..support.stand_ins import build_stand_ins, images_of
from ..support.stories import CANDIDATES, QUICK, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

EVERYTHING = {"tracking": "mlflow_server", "serving": "rest", "monitoring": "prometheus"}
VARIANTS: dict[str, dict[str, Any]] = {
    "airflow": {**EVERYTHING, "orchestrator": "airflow", "workers": "distributed"},
    "dagster": {"orchestrator": "dagster", "monitoring": "none"},
    "prefect": {**EVERYTHING, "orchestrator": "prefect"},
}
# Lines of config/pipeline.toml: any challenger is promoted, any difference is drift, and what fails
# is tried again.
CONFIG = QUICK | {
    'inference = "" ': 'inference = "" ',
    "retries = 2": "retries = 4",
    "min_improvement = 0.0 ": "min_improvement = -1e9 ",
    "min = 0.55": "min = 0.0",
    "max_psi = 0.1 ": "max_psi = 1e-9 ",
}
WITHOUT_PAGE = {"S3_PORT", "PUSHGATEWAY_PORT"}
DRIFTED = "2013-02-05"


@dataclass
class Engine:
    """A running Docker engine.

    Attributes:
        variables: What programs need to talk to it.
        images: Where the stand-ins are made.
        slack: Where containers send alerts.
    """

    variables: dict[str, str]
    images: Path
    slack: Webhook


@dataclass
class Stack:
    """A project whose services run.

    Attributes:
        ports: Where they answer on this machine, by the variable that says so, like SERVING_PORT.
    """

    project: Project
    ports: dict[str, str]

    def docker(self, *arguments: str, stderr: int = subprocess.PIPE) -> str:
        """Run docker in the project's folder and return what it prints."""
        done = subprocess.run(
            ["docker", *arguments],
            cwd=self.project.path,
            env={**os.environ, **self.project.environment},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def inside(self, service: str, *command: str) -> str:
        """Run a command in a service's container and return what it prints."""
        return self.docker("compose", "exec", "-T", service, *command)

    def containers(self, service: str) -> list[str]:
        """Return the names of a service's containers."""
        listed = self.docker("compose", "ps", "--format", "{{.Name}}", service)
        return sorted(listed.split())

    def logs(self, container: str) -> str:
        """Return all that a container printed."""
        return self.docker("logs", container, stderr=subprocess.STDOUT)

    def crash(self, container: str) -> None:
        """End a container's main process as a crash would, which Docker starts again."""
        pid = int(self.docker("inspect", "--format", "{{.State.Pid}}", container))
        os.kill(pid, signal.SIGKILL)

    def secret(self, name: str) -> str:
        """Return a value that `stack up` wrote."""
        return dotenv_values(self.project.path / ".env")[name] or ""

    def address(self, variable: str) -> str:
        """Return where a service answers."""
        return f"http://127.0.0.1:{self.ports[variable]}"

    def dag(self, pipeline: str) -> str:
        """Return what Airflow calls a pipeline."""
        return f"{self.project.package}_{pipeline}"

    def airflow(self) -> Airflow:
        """Return a client of Airflow's REST interface."""
        password = self.secret("AIRFLOW_ADMIN_PASSWORD")
        return Airflow(connect(self.address("AIRFLOW_PORT"), password))

    def rest(self) -> httpx.Client:
        """Return a client of the REST service."""
        headers = {"Authorization": f"Bearer {self.secret('SERVING_TOKEN')}"}
        address = self.address("SERVING_PORT")
        return httpx.Client(base_url=address, headers=headers, timeout=30, trust_env=False)

    def serves(self, version: int) -> bool | None:
        """Return True once the REST service serves a version."""
        with contextlib.suppress(httpx.HTTPError), self.rest() as client:
            page = client.get("/model").raise_for_status().json()
            return page["version"] == version or None
        return None

    def metric(self, query: str) -> float | None:
        """Return what Prometheus answers to a query; None without a result."""
        page = httpx.get(
            f"{self.address('PROMETHEUS_PORT')}/api/v1/query", params={"query": query}, timeout=10
        )
        result = page.raise_for_status().json()["data"]["result"]
        return float(result[0]["value"][1]) if result else None


@dataclass
class Load:
    """Asks the REST service without a pause for as long as its `with` block.

    Attributes:
        versions: The model's versions that answered.
        count: How many requests were answered.
        failures: What was answered otherwise.
    """

    stack: Stack
    versions: set[int] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    count: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Load:
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _ask(self) -> None:
        rows = sample_rows(self.stack.project, 3)
        with self.stack.rest() as client:
            while not self._ended.wait(0.1):
                try:
                    answer = client.post("/predict", json={"rows": rows}).raise_for_status().json()
                    assert len(answer["predictions"]) == 3, answer
                    self.versions.add(answer["model_version"])
                    self.count += 1
                except Exception as error:
                    self.failures.append(f"{type(error).__name__}: {error}")


def sample_rows(project: Project, count: int) -> list[dict[str, Any]]:
    """Return rows of the sample as JSON."""
    day = pl.read_parquet(project.path / "data" / "sample" / "2013-02-01.parquet")
    rows: list[dict[str, Any]] = json.loads(day.head(count).write_json())
    return rows


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Run one engine for all variants, so that they share images and what builds have cached."""
    folder = tmp_path_factory.mktemp("docker")
    # Containers reach this machine by the address of Docker's bridge.
    with docker_engine(folder / "engine") as variables, webhook(host=GATEWAY) as slack:
        yield Engine(variables, folder / "images", slack)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def stack(
    request: pytest.FixtureRequest,
    engine: Engine,
    sources: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    """Generate a project and run `poe stack up` in it."""
    folder = tmp_path_factory.mktemp("stack") / "project"
    project = make_installed_project(sources, folder, **VARIANTS[request.param])
    for old, new in CONFIG.items():
        project.edit_config(old, new)
    files = [folder / "compose.yaml", *(folder / "deploy" / "compose").glob("*.yaml")]
    names = {name for file in files for name in re.findall(r"\$\{(\w+_PORT):-\d", file.read_text())}
    ports = {name: f"{free_port()}" for name in sorted(names)}
    project.environment = {**engine.variables, **ports}
    # As `stack up` does first; without secrets compose does not say which images it wants.
    secrets = "from {0}.cli import stack; stack.create_secrets(stack.project_root())"
    project.run("python", "-c", secrets.format(project.package))
    with (folder / ".env").open("a") as file:
        file.write(f"SLACK_WEBHOOK_URL={engine.slack.url}\n")
    build_stand_ins(engine.images, engine.variables, images_of(folder, project.environment))
    try:
        said = project.run("poe", "stack", "up").stdout
        for name, port in ports.items():
            assert f"http://127.0.0.1:{port}" in said or name in WITHOUT_PAGE, said
        if "MLFLOW_PORT" in ports:
            project.environment["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{ports['MLFLOW_PORT']}"
        yield Stack(project, ports)
    finally:
        project.run("poe", "stack", "down", "--volumes", "--yes")


@pytest.mark.parametrize("stack", ["airflow"], indirect=True)
def test_two_workers_train_into_postgres_and_object_storage(stack: Stack) -> None:
    airflow, dag = stack.airflow(), stack.dag("training")
    assert airflow.result(dag, airflow.trigger(dag, partition="2013-01-31")) == "success"

    found = stack.project.mlflow()
    assert found["aliases"] == {"champion": 1}
    [parent] = runs_of(found, "training")
    assert parent["status"] == "FINISHED"
    assert set(children_of(found, parent)) == CANDIDATES
    workers = stack.containers("airflow-worker")
    assert len(workers) == 2
    for worker in workers:
        assert "succeeded in" in stack.logs(worker), worker
    count = stack.inside("postgres", "psql", "-U", "pipeline", "-At", "-d", "mlflow",
                         "-c", "SELECT count(*) FROM runs")  # fmt: skip
    assert count.strip() == "4"
    files = stack.inside("s3", "find", "/data/pipeline", "-type", "f")
    assert "/data/pipeline/mlflow/" in files
    assert "/data/pipeline/artifacts/runs/" in files
    assert not {"artifacts", "mlflow"} & set(stack.inside("airflow-worker", "ls", "var").split())

    alone = training_result(stack.project.run_alone("2013-01-31"))
    # Other builds of Python and other numbers of threads may differ in the last digits.
    assert training_result(found)["metrics"] == pytest.approx(alone["metrics"], rel=1e-6)

    wait_for(lambda: stack.serves(1), 180, "the champion to be served")
    succeeded = 'pipeline_last_success_timestamp_seconds{pipeline="training"}'
    wait_for(lambda: stack.metric(succeeded), 300, "the run's metrics in Prometheus")
    # Airflow with its scheduler, MLflow, PostgreSQL, Redis and the object storage.
    wait_for(lambda: stack.metric("sum(probe_success) == 5"), 300, "all that is probed to answer")


@pytest.mark.parametrize("stack", ["airflow"], indirect=True)
def test_retraining_survives_crashes_and_its_champion_is_served_without_a_gap(
    stack: Stack,
) -> None:
    """A day that drifted asks for a new model, while the service is under load."""
    airflow, dag = stack.airflow(), stack.dag("training")

    def started_by_drift() -> str | None:
        runs = airflow.get(f"/dags/{dag}/dagRuns")["dag_runs"]
        found = (run for run in runs if run["run_type"] == "asset_triggered")
        return next((run["dag_run_id"] for run in found), None)

    def trainer() -> str | None:
        """Return the container that trains a candidate."""
        tasks = airflow.tasks(dag, retraining).values()
        training = (t for t in tasks if t["state"] == "running" and "train" in t["task_id"])
        # A worker's host name is the beginning of its container's id.
        return next((str(task["hostname"]) for task in training if task["hostname"]), None)

    with Load(stack) as load:
        airflow.trigger(stack.dag("inference"), partition=DRIFTED)
        retraining = wait_for(started_by_drift, 300, "a training run that drift asked for")
        container = wait_for(trainer, 300, "candidates in training")
        stack.crash(container)
        stack.docker("compose", "restart", "postgres")
        assert wait_for_result(stack, dag, retraining) == "success"
        tries = [task["try_number"] for task in airflow.tasks(dag, retraining).values()]
        assert max(tries) > 1
        wait_for(lambda: stack.serves(2), 180, "the new champion to be served")
        asked = load.count
        wait_for(lambda: load.count > asked + 5 or None, 300, "answers of the new champion")
    assert load.failures == []
    assert load.versions == {1, 2}
    found = stack.project.mlflow()
    assert found["aliases"] == {"champion": 2, "previous": 1}
    assert sorted(found["versions"]) == [1, 2]
    (second, _) = runs_of(found, "training")
    assert second["status"] == "FINISHED"
    assert set(children_of(found, second)) == CANDIDATES


@pytest.mark.parametrize("stack", ["airflow"], indirect=True)
def test_the_pipeline_and_prometheus_tell_of_the_drift(stack: Stack, engine: Engine) -> None:
    """The pipeline at once, and Prometheus through Alertmanager."""

    def told() -> bool | None:
        texts = [body.decode() for body in engine.slack.bodies]
        by_pipeline = any("Drift" in text and DRIFTED in text for text in texts)
        by_prometheus = any("DataDrifted" in text for text in texts)
        return (by_pipeline and by_prometheus) or None

    assert stack.metric("pipeline_drift_share") is not None
    wait_for(told, 240, f"both alerts, of {engine.slack.bodies}")


@pytest.mark.parametrize("stack", ["airflow"], indirect=True)
def test_a_backup_brings_everything_back(stack: Stack, tmp_path: Path) -> None:
    project = stack.project
    before = project.mlflow()
    project.run("poe", "stack", "backup", f"{tmp_path}")
    [backup] = tmp_path.iterdir()
    project.run("poe", "stack", "down", "--volumes", "--yes")
    assert stack.docker("volume", "ls", "--quiet") == ""

    project.run("poe", "stack", "restore", f"{backup}", "--yes")

    assert project.run("poe", "stack", "status").returncode == 0
    assert project.mlflow() == before
    wait_for(lambda: stack.serves(2), 180, "the champion to be served again")


def wait_for_result(stack: Stack, dag: str, run: str) -> str:
    """Return how a run ended; the API server may be away for a moment."""

    def ended() -> str | None:
        with contextlib.suppress(httpx.HTTPError):
            state = stack.airflow().get(f"/dags/{dag}/dagRuns/{run}")["state"]
            return str(state) if state in ("success", "failed") else None
        return None

    # A task that waited in the memory of a worker that crashed is queued again after ten minutes.
    return wait_for(ended, 1200, f"{dag} {run} to end")


@pytest.mark.parametrize("stack", ["dagster"], indirect=True)
def test_dagster_trains_on_the_shared_volume_which_a_backup_holds(
    stack: Stack, tmp_path: Path
) -> None:
    dagster = Dagster(stack.address("DAGSTER_PORT"), "grpc:dagster-code:4000")
    run = dagster.launch("training", "2013-01-31")
    assert dagster.result("training", run) == "SUCCESS"
    # What a candidate of LightGBM needs of the system.
    assert "libgomp.so.1" in stack.inside("dagster-code", "ldconfig", "-p")
    champion = CHAMPION.format(stack.project.package)
    assert stack.inside("dagster-code", "python", "-c", champion).split() == ["1"]

    stack.project.run("poe", "stack", "backup", f"{tmp_path}")
    [backup] = tmp_path.iterdir()
    assert backup.stat().st_mode & 0o077 == 0
    stack.project.run("poe", "stack", "down", "--volumes", "--yes")
    stack.project.run("poe", "stack", "restore", f"{backup}", "--yes")
    assert stack.inside("dagster-code", "python", "-c", champion).split() == ["1"]


@pytest.mark.parametrize("stack", ["prefect"], indirect=True)
def test_prefect_trains_and_serves(stack: Stack) -> None:
    login = ("admin", stack.secret("PREFECT_ADMIN_PASSWORD"))
    prefect = Prefect(stack.address("PREFECT_PORT"), login)
    run = prefect.launch("training", partition="2013-01-31")
    assert prefect.result(run)["state_name"] == "Completed"
    assert stack.project.mlflow()["aliases"] == {"champion": 1}
    wait_for(lambda: stack.serves(1), 180, "the champion to be served")

    # A run whose worker crashes is started again by the worker that follows.
    def trains() -> bool | None:
        tasks = prefect.tasks(crashed).items()
        return any("train" in name and t["state_type"] == "RUNNING" for name, t in tasks) or None

    crashed = prefect.launch("training", partition="2013-01-30")
    wait_for(trains, 200, "candidates in training")
    stack.crash(stack.containers("prefect-worker")[0])
    ended = prefect.result(crashed)
    assert (ended["state_name"], ended["run_count"]) == ("Completed", 2)
    assert [run["status"] for run in runs_of(stack.project.mlflow(), "training")] == [
        "FINISHED"
    ] * 2

    refused = httpx.get(f"{stack.address('PREFECT_PORT')}/api/admin/version", timeout=10)
    assert refused.status_code == 401
    # Prometheus has the password.
    wait_for(lambda: stack.metric('up{job="prefect-server"}') or None, 300, "Prefect's own metrics")
    # Prefect, MLflow, PostgreSQL and the object storage.
    wait_for(lambda: stack.metric("sum(probe_success) == 4"), 300, "all that is probed to answer")


CHAMPION = "from {0}.core import registry; print(registry.require_champion().version)"
