"""Requests to our service and to `mlflow models serve`, on the same model, in turns.

MLflow's server knows nothing of the data contract or of features, so it is sent finished features
(`dataframe_split`); ours is sent raw rows, checks them, computes the features, and predicts.
"""

from __future__ import annotations

import contextlib
import http.client
import math
import os
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
from receivers import free_port

from .measure import Command, CommandError, MemorySampler, Usage
from .results import MEGABYTE, Row
from .workspace import Workspace

if TYPE_CHECKING:
    from .bench import Bench

CLIENTS = 4
# Requests of a round by the rows of each; the two sizes take about as long.
REQUESTS = {1: 800, 1_000: 200}
WARM_UP = 20
START_SECONDS = 120
MIN_THROUGHPUT_RATIO = 2.0
OURS, PEER = "serving", "peer: mlflow models serve"

# Runs in the project: writes what each side is sent, for each number of rows.
BODIES = """
import json, sys
from pathlib import Path
import polars as pl
from flight_delays.domain.features import FEATURES, features
from flight_delays.serving.rows import as_json

folder = Path(sys.argv[1])
days = [pl.read_parquet(path) for path in sorted(Path("data/sample").glob("*.parquet"))[:7]]
rows = pl.concat(days).unique(["date", "carrier", "flight", "origin", "sched_dep_time"])
for count in map(int, sys.argv[2:]):
    some = rows.sample(count, seed=7)
    (folder / f"ours-{count}.json").write_text(json.dumps({"rows": as_json(some)}))
    known = features(some).select(FEATURES)
    split = {"columns": known.columns, "data": [list(row) for row in known.iter_rows()]}
    (folder / f"peer-{count}.json").write_text(json.dumps({"dataframe_split": split}))
"""


@dataclass(frozen=True)
class Side:
    """A running server and what it is sent.

    Attributes:
        bodies: The request's body by its number of rows.
    """

    name: str
    process: psutil.Process
    port: int
    path: str
    bodies: dict[int, bytes]


@dataclass(frozen=True)
class Load:
    """What one round of requests measured; latencies in seconds, one a request."""

    usage: Usage
    latencies: Sequence[float]

    @property
    def rate(self) -> float:
        """Return requests a second."""
        return len(self.latencies) / self.usage.wall

    def quantile(self, share: float) -> float:
        """Return the latency that a share of the requests did not exceed, in seconds."""
        return sorted(self.latencies)[math.ceil(share * len(self.latencies)) - 1]


def serving(bench: Bench) -> None:
    """Ask both servers for predictions of one row and of a thousand."""
    workspace = bench.workspace.variant(serving="rest")
    workspace.command(workspace.python.with_name("flight-delays"), "run", "training").measure()
    workspace.command(
        workspace.python, "-c", BODIES, workspace.folder, *map(str, REQUESTS)
    ).measure()
    with _ours(workspace) as ours, _peer(workspace) as peer:
        for rows, requests in REQUESTS.items():
            sides = (ours, peer)
            rounds: dict[str, list[Load]] = {side.name: [] for side in sides}
            for side in sides:
                ask(side, rows, WARM_UP)
            for _ in range(bench.repeats):
                for side in sides:
                    load = ask(side, rows, requests)
                    rounds[side.name].append(load)
                    bench.say(f"{side.name}, {rows:,} rows: {_figures([load])}")
            _compare(bench, rows, rounds)


def ask(side: Side, rows: int, requests: int) -> Load:
    """Send requests from several clients, each over one connection, as fast as they are answered.

    Raises:
        CommandError: An answer was not 200.
    """
    latencies: list[float] = []
    problems: list[str] = []
    body = side.bodies[rows]

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", side.port, timeout=60)
        with contextlib.closing(connection):
            for _ in range(requests // CLIENTS):
                begun = time.perf_counter()
                connection.request("POST", side.path, body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                text = answer.read()
                latencies.append(time.perf_counter() - begun)
                if answer.status != http.HTTPStatus.OK:
                    problems.append(f"{answer.status}: {text[:500]!r}")
                    return

    threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
    cpu, begun = _cpu(side.process), time.perf_counter()
    with MemorySampler(side.process.pid) as memory:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    wall = time.perf_counter() - begun
    if problems or len(latencies) < requests // CLIENTS * CLIENTS:
        raise CommandError(f"{side.name} did not answer: {problems[:1]}")
    return Load(Usage(_cpu(side.process) - cpu, wall, memory.peak), latencies)


def _compare(bench: Bench, rows: int, rounds: dict[str, list[Load]]) -> None:
    for name, loads in rounds.items():
        usage = Usage(
            cpu=statistics.median(load.usage.cpu for load in loads),
            wall=statistics.median(load.usage.wall for load in loads),
            peak=max(load.usage.peak for load in loads),
        )
        each = "1 row" if rows == 1 else f"{rows:,} rows"
        label = f"{name}, {REQUESTS[rows]} requests of {each}: {_figures(loads)}"
        bench.results.rows.append(Row(label, len(loads), usage))
    ours, peer = rounds[OURS], rounds[PEER]
    each = "one row" if rows == 1 else f"{rows:,} rows"
    ratio = _median_rate(ours) / _median_rate(peer)
    bench.promise(
        f"{each}: {MIN_THROUGHPUT_RATIO:g} times the requests a second of mlflow models serve",
        f"{ratio:.2f} times",
        ratio >= MIN_THROUGHPUT_RATIO,
    )
    mine, theirs = (_median_quantile(loads, 0.99) for loads in (ours, peer))
    bench.promise(
        f"{each}: a lower p99 than mlflow models serve",
        f"{1000 * mine:.1f} ms and {1000 * theirs:.1f} ms",
        mine < theirs,
    )
    mine_peak, their_peak = (max(load.usage.peak for load in loads) for loads in (ours, peer))
    bench.promise(
        f"{each}: less memory than mlflow models serve",
        f"{mine_peak / MEGABYTE:,.0f} MB and {their_peak / MEGABYTE:,.0f} MB",
        mine_peak < their_peak,
    )


def _figures(loads: Sequence[Load]) -> str:
    p50, p99 = (1000 * _median_quantile(loads, share) for share in (0.5, 0.99))
    return f"{_median_rate(loads):,.0f}/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms"


def _median_rate(loads: Sequence[Load]) -> float:
    return statistics.median(load.rate for load in loads)


def _median_quantile(loads: Sequence[Load], share: float) -> float:
    return statistics.median(load.quantile(share) for load in loads)


@contextlib.contextmanager
def _ours(workspace: Workspace) -> Iterator[Side]:
    port = free_port()
    command = workspace.command(
        workspace.python, "-m", "flight_delays.serving", SERVING_PORT=f"{port}"
    )
    with _running(command, port, "/health/ready") as process:
        yield Side(OURS, process, port, "/predict", _bodies(workspace, "ours"))


@contextlib.contextmanager
def _peer(workspace: Workspace) -> Iterator[Side]:
    port = free_port()
    database = workspace.project / "var" / "mlflow" / "mlflow.db"
    command = workspace.command(
        *(workspace.python.with_name("mlflow"), "models", "serve", "--env-manager", "local"),
        *("--model-uri", "models:/flight-delays@champion", "--port", f"{port}"),
        MLFLOW_TRACKING_URI=f"sqlite:///{database}",
        MLFLOW_DISABLE_TELEMETRY="true",
        DO_NOT_TRACK="true",
        # It starts uvicorn by its name.
        PATH=f"{workspace.python.parent}{os.pathsep}{os.environ['PATH']}",
    )
    with _running(command, port, "/health") as process:
        yield Side(PEER, process, port, "/invocations", _bodies(workspace, "peer"))


def _bodies(workspace: Workspace, side: str) -> dict[int, bytes]:
    return {rows: (workspace.folder / f"{side}-{rows}.json").read_bytes() for rows in REQUESTS}


@contextlib.contextmanager
def _running(command: Command, port: int, health: str) -> Iterator[psutil.Process]:
    """Run a server until the block ends, from when it answers."""
    with subprocess.Popen(
        command.arguments,
        cwd=command.folder,
        env=command.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            deadline = time.monotonic() + START_SECONDS
            while _status(port, health) != http.HTTPStatus.OK:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise CommandError(f"{command.arguments[-1]} did not become ready")
                time.sleep(0.2)
            yield psutil.Process(process.pid)
        finally:
            # Children, too: MLflow's command starts the server in a process of its own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _status(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", path)
        return connection.getresponse().status
    return 0


def _cpu(process: psutil.Process) -> float:
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(time.user + time.system for time in times)
