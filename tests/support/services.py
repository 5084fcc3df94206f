"""Servers that a distributed project talks to, on loopback, each for as long as its `with` block.

PostgreSQL and Redis come from Debian by scripts/install_services.sh, the S3 service is rclone's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx
from receivers import free_port

from .template import ROOT

WAIT_SECONDS = 120.0


def install() -> None:
    """Install what is missing; does nothing the second time.

    Raises:
        subprocess.CalledProcessError: The installation failed.
    """
    subprocess.run([ROOT / "scripts" / "install_services.sh"], check=True)


@contextmanager
def running(
    command: Sequence[object],
    log: Path,
    cwd: Path | None = None,
    user: str | None = None,
    environment: dict[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a session of its own; at the end stop it and all its children."""
    stream: IO[bytes]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=user,
        )
    try:
        yield process
    finally:
        for number, seconds in ((signal.SIGTERM, 20), (signal.SIGKILL, 10)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=seconds)


def wait_until(ready: Sequence[object], process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a command succeeds."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        asked = subprocess.run([str(part) for part in ready], capture_output=True, check=False)
        if asked.returncode == 0:
            return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"not ready:\n{log.read_text()}"
        time.sleep(0.2)


@dataclass(frozen=True)
class Postgres:
    """A running PostgreSQL; `create` makes a database in it."""

    port: int
    programs: Path

    def create(self, database: str) -> str:
        """Create a database and return its address without a driver, `user:password@host/name`."""
        subprocess.run(
            [self.programs / "createdb", "-h", "127.0.0.1", "-p", f"{self.port}", "-U", "pipeline",
             database],
            check=True,
            env={**os.environ, "PGPASSWORD": "secret"},
        )  # fmt: skip
        return f"pipeline:secret@127.0.0.1:{self.port}/{database}"


@contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """Run a PostgreSQL server whose data is in a folder."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    # PostgreSQL refuses to run as root; its user must reach the folder.
    data = Path("/var/lib/postgresql") / f"ml-pipeline-template-{os.getpid()}-{free_port()}"
    password = folder / "password"
    folder.mkdir(parents=True, exist_ok=True)
    password.write_text("secret")
    user = "postgres" if os.getuid() == 0 else None
    if user is None:
        data = folder / "data"
    data.mkdir(parents=True)
    if user is not None:
        shutil.chown(data, user)
        shutil.move(password, data.with_suffix(".password"))
        password = data.with_suffix(".password")
        shutil.chown(password, user)
    port = free_port()
    try:
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "pipeline", "-A", "scram-sha-256",
             "--pwfile", password, "--no-sync"],
            check=True,
            capture_output=True,
            user=user,
            cwd="/",
        )  # fmt: skip
        log = folder / "postgres.log"
        command = [programs / "postgres", "-D", data, "-p", f"{port}", "-h", "127.0.0.1",
                   "-k", "", "-c", "fsync=off"]  # fmt: skip
        with running(command, log, cwd=Path("/"), user=user) as process:
            ready = [programs / "pg_isready", "-h", "127.0.0.1", "-p", f"{port}"]
            wait_until(ready, process, log)
            yield Postgres(port, programs)
    finally:
        shutil.rmtree(data)
        password.unlink()


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Run a Redis server without persistence; returns its address."""
    port = free_port()
    log = folder / "redis.log"
    command = ["redis-server", "--port", f"{port}", "--bind", "127.0.0.1", "--save", "",
               "--appendonly", "no"]  # fmt: skip
    with running(command, log, cwd=folder) as process:
        wait_until(["redis-cli", "-p", f"{port}", "ping"], process, log)
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def s3(folder: Path, bucket: str = "pipeline") -> Iterator[dict[str, str]]:
    """Run an S3 service on a folder; returns the variables of its clients.

    It checks signatures, so that a client without the key is refused.
    """
    port = free_port()
    files = folder / "s3"
    (files / bucket).mkdir(parents=True)
    log = folder / "s3.log"
    address = f"http://127.0.0.1:{port}"
    rclone = Path(sys.executable).parent / "rclone"
    command = [rclone, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", "key,secret",
               files]  # fmt: skip
    with running(command, log, environment={"RCLONE_CONFIG": os.devnull}) as process:
        wait_for_http(address, process, log)
        yield {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "PIPELINE_STORAGE__ROOT": f"s3://{bucket}/artifacts",
        }


@contextmanager
def mlflow_server(
    python: str, folder: Path, environment: dict[str, str], database: str
) -> Iterator[str]:
    """Run MLflow in an environment of its own as the server all workers share.

    Args:
        python: The interpreter.
        folder: Where its log goes.
        environment: Access to the S3 service that holds the models.
        database: What `Postgres.create` returned.

    Yields:
        Its address.
    """
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    log = folder / "mlflow.log"
    packages = ("mlflow>=3.17,<4", "boto3", "psycopg2-binary")
    command = ["uv", "run", "--quiet", "--no-project", "--python", python,
               *(part for package in packages for part in ("--with", package)),
               "mlflow", "server", "--port", f"{port}", "--workers", "1",
               "--backend-store-uri", f"postgresql+psycopg2://{database}",
               "--artifacts-destination", "s3://pipeline/mlflow"]  # fmt: skip
    variables = {
        **environment,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_S3_ENDPOINT_URL": environment["AWS_ENDPOINT_URL"],
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
    with running(command, log, cwd=folder, environment=variables) as process:
        wait_for_http(f"{address}/health", process, log)
        yield address


@contextmanager
def shared_state(python: str, folder: Path) -> Iterator[tuple[Postgres, dict[str, str]]]:
    """Run what all workers share: PostgreSQL, an S3 service, and MLflow on both.

    Yields:
        The database server, and the variables of a distributed project.
    """
    with ExitStack() as stack:
        database = stack.enter_context(postgres(folder / "postgres"))
        files = stack.enter_context(s3(folder))
        server = mlflow_server(python, folder, files, database.create("mlflow"))
        yield database, {**files, "MLFLOW_TRACKING_URI": stack.enter_context(server)}


def wait_for_http(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until an address answers at all."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        with contextlib.suppress(httpx.TransportError):
            httpx.get(url, timeout=5, trust_env=False)
            return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"{url} is not ready:\n{log.read_text()}"
        time.sleep(0.3)
