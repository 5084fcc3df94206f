"""The service as people run it: a process, real requests, and a registry that comes and goes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import numpy as np
import polars as pl
import pytest
import receivers
import sandbox
from flight_delays.cli.score_file import score_file
from flight_delays.core import tracking
from flight_delays.core.refs import CandidateRef
from flight_delays.core.registry import (
    CHAMPION,
    model_name,
    promote,
    register,
    require_champion,
    retire,
    withdraw,
)
from flight_delays.serving.rows import as_json
from mlflow.server import app as mlflow_app
from mlflow.server import handlers
from mlflow.server.constants import BACKEND_STORE_URI_ENV_VAR
from sandbox import Trained
from werkzeug.serving import BaseWSGIServer, make_server

TOKEN = "a-token-of-the-tests"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
MAX_BYTES = 1_000_000
MAX_ROWS = 1_500
CLIENTS = 4


@dataclass
class Registry:
    """MLflow's own server on the project's database, in a thread of this process."""

    port: int
    server: BaseWSGIServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.server = make_server("127.0.0.1", self.port, mlflow_app, threaded=True)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        assert self.server is not None
        self.server.shutdown()
        self.server.server_close()
        self.server = None

    @contextmanager
    def unplugged(self) -> Iterator[None]:
        """Be down for a while."""
        self.stop()
        try:
            yield
        finally:
            self.start()


@dataclass
class Service:
    """A running service."""

    port: int
    client: httpx.Client
    process: subprocess.Popen[bytes]
    log: Path

    def model(self) -> dict[str, Any]:
        page: dict[str, Any] = self.client.get("/model").json()
        return page

    def predict(self, rows: list[dict[str, Any]]) -> httpx.Response:
        return self.client.post("/predict", json={"rows": rows})

    def wait_until_ready(self) -> None:
        wait_for(lambda: self.status("/health/ready") == 200, self)

    def status(self, path: str) -> int:
        try:
            return self.client.get(path).status_code
        except httpx.TransportError:
            return 0

    def counted(self, name: str) -> float:
        """Return a value of the metrics page."""
        lines = self.client.get("/metrics").text.splitlines()
        return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def wait_for(condition: Callable[[], bool], service: Service) -> None:
    """Wait until something holds; fails when the service ends or nothing happens for long."""
    deadline = time.monotonic() + 120
    while not condition():
        assert service.process.poll() is None, service.log.read_text()
        assert time.monotonic() < deadline, service.log.read_text()
        time.sleep(0.05)


@contextmanager
def serving(root: Path, registry: Registry, **variables: str) -> Iterator[Service]:
    """Run the service of a project until the block ends."""
    port = receivers.free_port()
    log = root / "serving.log"
    # Also what MLflow's server has set in this process.
    foreign = ("SERVING_", "MLFLOW_", "_MLFLOW_")
    own = {name: text for name, text in os.environ.items() if not name.startswith(foreign)}
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "flight_delays.serving"],
            env={
                **own,
                "PIPELINE_HOME": str(root),
                "MLFLOW_TRACKING_URI": registry.url,
                "SERVING_PORT": f"{port}",
                "SERVING_TOKEN": TOKEN,
                "SERVING_REFRESH_SECONDS": "0.2",
                **variables,
            },
            stdout=stream,
            stderr=stream,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, headers=HEADERS, timeout=60, trust_env=False) as client:
            service = Service(port, client, process, log)
            wait_for(lambda: service.status("/health/live") == 200, service)
            yield service
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def registry(trained_once: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Run a registry with two versions of the model; the first is champion."""
    root = tmp_path_factory.mktemp("registry") / "project"
    shutil.copytree(trained_once.root, root)
    (root / "data" / "sample").mkdir(parents=True)
    shutil.copy(next(sandbox.SAMPLE.glob("*.parquet")), root / "data" / "sample")
    with sandbox.enter(root):
        records = sandbox.records(trained_once.run)
        trained = [
            CandidateRef.model_validate(record.result)
            for label, record in records.items()
            if label.startswith("train-")
        ]
        other = next(found for found in trained if register(found) != sandbox.registry().champion)
        assert (register(other), sandbox.registry().champion) == (2, 1)
        environment = {BACKEND_STORE_URI_ENV_VAR: tracking.tracking_uri()}
        with (
            mock.patch.dict(os.environ, environment),
            mock.patch.object(handlers, "_tracking_store", None),
            mock.patch.object(handlers, "_model_registry_store", None),
        ):
            found = Registry(receivers.free_port())
            found.start()
            yield found
            found.stop()


@pytest.fixture(scope="module")
def service(registry: Registry) -> Iterator[Service]:
    """Run one service for all tests that leave it as it is."""
    limits = {"SERVING_MAX_BYTES": f"{MAX_BYTES}", "SERVING_MAX_ROWS": f"{MAX_ROWS}"}
    root = Path(os.environ["PIPELINE_HOME"])
    with serving(root, registry, PIPELINE_LOGGING__LEVEL="DEBUG", **limits) as found:
        found.wait_until_ready()
        yield found


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    """Return rows of the example as a request sends them."""
    return as_json(sandbox.sample())


def test_predictions_are_those_of_score(
    service: Service, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    source, target = tmp_path / "rows.parquet", tmp_path / "predictions.parquet"
    sandbox.sample().write_parquet(source)
    score_file(source, target)
    expected = pl.read_parquet(target)
    answer = service.predict(rows)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model_version"] == 1
    found = pl.DataFrame(answer.json()["predictions"])
    exact = expected.drop("^probability_.*$", "model_version").with_columns(
        pl.col("date").cast(str)
    )
    assert found.drop("^probability_.*$").cast(exact.schema).equals(exact)
    values = found["probability_1"].to_numpy()
    np.testing.assert_allclose(values, expected["probability_1"].to_numpy(), rtol=1e-9)
    for index in (0, 7):
        (alone,) = service.predict([rows[index]]).json()["predictions"]
        assert alone["probability_1"] == pytest.approx(values[index], rel=1e-9)
        assert alone["prediction"] == int(values[index] >= 0.5)


def test_a_nullable_field_may_be_left_out(service: Service, rows: list[dict[str, Any]]) -> None:
    without = {name: value for name, value in rows[0].items() if name != "temp"}
    answers = [service.predict([row]).json() for row in (without, {**without, "temp": None})]
    assert answers[0] == answers[1]
    assert "predictions" in answers[0]


def test_violations_name_row_and_field_all_at_once(
    service: Service, rows: list[dict[str, Any]]
) -> None:
    bad = [dict(row) for row in rows[:4]]
    bad[1] |= {"carrier": "??", "distance": 5.5}
    del bad[2]["origin"]
    bad[3]["date"] = "yesterday"
    before = service.counted("serving_rows_rejected_total")
    answer = service.predict(bad)
    assert answer.status_code == 422
    assert "4 violations in 3 rows" in answer.json()["detail"]
    named = {(one["row"], one["field"]): one for one in answer.json()["violations"]}
    assert named.keys() == {(1, "carrier"), (1, "distance"), (2, "origin"), (3, "date")}
    assert named[1, "carrier"]["value"] == "??"
    assert named[1, "carrier"]["rule"].startswith("Input should be '9E', 'AA'")
    assert named[2, "origin"]["rule"] == "Field required"
    assert service.counted("serving_rows_rejected_total") == before + 3


def test_very_many_violations_are_counted_and_cut(
    service: Service, rows: list[dict[str, Any]]
) -> None:
    answer = service.predict([{**row, "distance": "far"} for row in rows[:300]])
    assert answer.status_code == 422
    assert "300 violations in 300 rows; the first 100 are listed" in answer.json()["detail"]
    assert len(answer.json()["violations"]) == 100


@pytest.mark.parametrize("path", ["/predict", "/model"])
@pytest.mark.parametrize(
    "sent", [None, "Bearer wrong", f"Basic {TOKEN}", "Bearer", "Bearer \u00e9"]
)
def test_what_is_not_open_asks_for_the_token(service: Service, path: str, sent: str | None) -> None:
    method = "POST" if path == "/predict" else "GET"
    headers = [] if sent is None else [(b"Authorization", sent.encode())]
    url = f"http://127.0.0.1:{service.port}{path}"
    answer = httpx.request(method, url, headers=headers, json={}, trust_env=False)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_health_and_metrics_are_open(service: Service) -> None:
    for path in ("/health/live", "/health/ready", "/metrics", "/docs", "/openapi.json"):
        url = f"http://127.0.0.1:{service.port}{path}"
        assert httpx.get(url, trust_env=False).status_code == 200


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", JSON, 400),
        (b'{"rows": [', JSON, 400),
        (b'{"rows": [{"temp": NaN}]}', JSON, 422),
        (b'{"rows": [{"temp": Infinity}]}', JSON, 422),
        (b"\xff\xfe\x00", JSON, 400),
        (b"[" * 200_000, JSON, 400),
        (b'{"rows": ' + b"[" * 5_000 + b"]" * 5_000 + b"}", JSON, 400),
        (b"null", JSON, 422),
        (b'"rows"', JSON, 422),
        (b"[{}]", JSON, 422),
        (b'{"rows": {}}', JSON, 422),
        (b'{"rows": []}', JSON, 422),
        (b'{"rows": [7, null, "text", [1]]}', JSON, 422),
        (b'{"rows": [{"flight": ' + b"9" * 50_000 + b"}]}", JSON, 400),
        (b'{"rows": [{}]}', JSON, 422),
        (b'{"rows": [' + b"{}," * MAX_ROWS + b"{}]}", JSON, 413),
        (b" " * (MAX_BYTES + 1), JSON, 413),
        (b"rows=1", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        (b"\x80\x04cos\nsystem\n.", {"Content-Type": "application/octet-stream"}, 415),
        (b"{}", {"Content-Type": ""}, 415),
        (b"\x1f\x8b\x08", {**JSON, "Content-Encoding": "gzip"}, 415),
    ],
)
def test_a_bad_body_is_refused_with_a_sentence(
    service: Service, body: bytes, headers: dict[str, str], status: int
) -> None:
    answer = service.client.post("/predict", content=body, headers=headers)
    assert answer.status_code == status
    assert len(answer.json()["detail"]) > 10
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("flight", 10**30),
        ("flight", 10**300),
        ("flight", 40_000),
        ("flight", True),
        ("flight", "12"),
        ("flight", 1.5),
        ("flight", -1),
        ("distance", None),
        ("temp", 1e39),
        ("temp", 1e300),
        ("temp", float("nan")),
        ("temp", float("inf")),
        ("temp", [1.0]),
        ("temp", False),
        ("carrier", 7),
        ("carrier", {"a": {"b": [None] * 50}}),
        ("origin", "x" * 10_000),
        ("dest", "\u0000"),
        ("date", 20130128),
        ("date", "2013-02-30"),
        ("date", "9" * 5_000),
    ],
)
def test_a_bad_value_is_named(
    service: Service, rows: list[dict[str, Any]], field: str, value: Any
) -> None:
    body = json.dumps({"rows": [rows[0], {**rows[1], field: value}]})
    answer = service.client.post("/predict", content=body, headers=JSON)
    assert answer.status_code == 422
    (violation,) = answer.json()["violations"]
    assert (violation["row"], violation["field"]) == (1, field)
    assert len(answer.text) < 1_000


def test_a_body_without_a_declared_length_is_limited_too(service: Service) -> None:
    chunks = (b" " * 100_000 for _ in range(100))
    with socket.create_connection(("127.0.0.1", service.port), 60) as connection:
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        head += "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode())
        try:
            for chunk in chunks:
                connection.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        except OSError:
            pass
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


def test_metrics_count_what_happened(service: Service, rows: list[dict[str, Any]]) -> None:
    names = (
        'serving_requests_total{route="/predict",status="200"}',
        'serving_request_seconds_count{route="/predict"}',
        "serving_rows_predicted_total",
        'serving_requests_total{route="other",status="404"}',
    )
    service.predict(rows[:1])
    service.status("/nowhere")
    before = [service.counted(name) for name in names]
    service.predict(rows[:5])
    service.status("/another")
    assert [service.counted(name) for name in names] == [
        before[0] + 1, before[1] + 1, before[2] + 5, before[3] + 1,
    ]  # fmt: skip
    assert service.counted("serving_model_version") == 1
    assert service.counted("serving_champion_version") == 1
    assert service.counted("serving_model_age_seconds") > 0
    assert service.counted("serving_registry_reachable") == 1
    assert service.counted("process_resident_memory_bytes") > 0


def test_the_documentation_has_a_row_that_can_be_sent(service: Service) -> None:
    page = service.client.get("/openapi.json").json()
    body = page["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert service.client.post("/predict", json=body["example"]).status_code == 200
    row = body["schema"]["properties"]["rows"]["items"]
    assert row["properties"]["origin"]["enum"] == ["EWR", "JFK", "LGA"]
    assert [kind["type"] for kind in row["properties"]["temp"]["anyOf"]] == ["number", "null"]
    assert "temp" not in row["required"]
    assert "origin" in row["required"]
    assert page["components"]["schemas"]["Answer"]["properties"].keys() == {
        "model_version",
        "predictions",
    }
    prediction = page["components"]["schemas"]["Prediction"]
    assert prediction["patternProperties"] == {"^probability_": {"type": "number"}}


def test_model_page_describes_the_champion(service: Service) -> None:
    page = service.model()
    champion = require_champion()
    assert (page["name"], page["version"]) == (model_name(), 1)
    assert page["run_url"].endswith(f"/runs/{champion.run_id}")
    assert page["metrics"]
    assert page["source"] == "registry"
    assert page["registry"]["error"] is None
    assert page["loaded_since"] < page["registry"]["checked"]


def test_requests_are_logged_at_debug_level_without_secrets(service: Service) -> None:
    service.status("/health/live")
    text = service.log.read_text()
    assert "GET /health/live 200" in text
    assert TOKEN not in text


def test_a_moved_alias_is_followed_without_a_failed_request(
    service: Service, rows: list[dict[str, Any]]
) -> None:
    versions: list[list[int]] = [[] for _ in range(CLIENTS)]
    failures: list[str] = []
    done = threading.Event()

    def ask(seen: list[int]) -> None:
        url = f"http://127.0.0.1:{service.port}"
        with httpx.Client(base_url=url, headers=HEADERS, timeout=60, trust_env=False) as client:
            while not done.is_set():
                answer = client.post("/predict", json={"rows": rows[:3]})
                if answer.status_code == 200:
                    seen.append(answer.json()["model_version"])
                else:
                    failures.append(answer.text)

    threads = [threading.Thread(target=ask, args=(seen,)) for seen in versions]
    try:
        for thread in threads:
            thread.start()
        wait_for(lambda: all(versions), service)
        promote(2)
        wait_for(lambda: all(seen[-1] == 2 for seen in versions), service)
    finally:
        done.set()
        for thread in threads:
            thread.join()
        promote(1)
    assert failures == []
    for seen in versions:
        assert seen == sorted(seen)
        assert set(seen) == {1, 2}
    wait_for(lambda: service.model()["version"] == 1, service)


def test_it_goes_on_while_the_registry_is_down(
    service: Service, registry: Registry, rows: list[dict[str, Any]]
) -> None:
    with registry.unplugged():
        wait_for(lambda: not service.model()["registry"]["reachable"], service)
        assert service.predict(rows[:1]).status_code == 200
        assert service.status("/health/ready") == 200
        assert "no answer" in service.model()["registry"]["error"]
        assert service.counted("serving_registry_reachable") == 0
    wait_for(lambda: service.model()["registry"]["reachable"], service)


def test_a_version_that_cannot_be_loaded_does_not_replace_a_good_one(
    service: Service, rows: list[dict[str, Any]]
) -> None:
    name = model_name()
    broken = tracking.client().create_model_version(name, "file:///nowhere/at/all")
    try:
        promote(int(broken.version))
        wait_for(lambda: "cannot be loaded" in f"{service.model()['registry']['error']}", service)
        assert service.predict(rows[:1]).json()["model_version"] == 1
        assert service.counted("serving_model_version") == 1
        assert service.counted("serving_champion_version") == int(broken.version)
    finally:
        promote(1)
    wait_for(lambda: service.model()["registry"]["error"] is None, service)


def checkout(root: Path) -> Path:
    """Make another checkout of the project whose MLflow runs here, on the same models."""
    (root / "config").mkdir(parents=True)
    (root / "config" / "pipeline.toml").write_text(sandbox.CONFIG)
    (root / "var").mkdir()
    (root / "var" / "mlflow").symlink_to(Path(os.environ["PIPELINE_HOME"]) / "var" / "mlflow")
    return root


def test_it_waits_for_a_champion_and_starts_again_without_the_registry(
    service: Service, registry: Registry, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    root = checkout(tmp_path / "other")
    tracking.client().delete_registered_model_alias(model_name(), CHAMPION)
    try:
        with serving(root, registry) as other:
            wait_for(lambda: "has no champion" in f"{other.model()['registry']['error']}", other)
            assert other.status("/health/ready") == 503
            answer = other.predict(rows[:1])
            assert (answer.status_code, answer.json()["detail"]) == (
                503,
                "no champion is loaded yet",
            )
            # What is loaded already stays.
            assert service.predict(rows[:1]).status_code == 200
            promote(1)
            other.wait_until_ready()
            expected = other.predict(rows[:5]).json()
            assert _ends_after_its_request(other, rows) == expected
    finally:
        promote(1)
    assert (root / "var" / "serving").stat().st_mode & 0o777 == 0o700
    with registry.unplugged(), serving(root, registry) as again:
        again.wait_until_ready()
        assert again.predict(rows[:5]).json() == expected
        assert again.model()["source"] == "cache"
        assert not again.model()["registry"]["reachable"]


def test_what_a_person_retires_is_served_no_longer(
    registry: Registry, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    root = checkout(tmp_path / "other")
    try:
        with serving(root, registry) as other:
            other.wait_until_ready()
            assert other.predict(rows[:1]).status_code == 200
            withdraw(1)
            retire()
            wait_for(lambda: other.status("/health/ready") == 503, other)
            answer = other.predict(rows[:1])
            assert (answer.status_code, answer.json()["detail"]) == (
                503,
                "no champion is loaded yet",
            )
        with registry.unplugged(), serving(root, registry) as again:
            wait_for(lambda: "no answer" in f"{again.model()['registry']['error']}", again)
            assert again.status("/health/ready") == 503
    finally:
        promote(1)


def _ends_after_its_request(service: Service, rows: list[dict[str, Any]]) -> Any:
    """Stop a service in the middle of a request; returns the request's answer."""
    body = json.dumps({"rows": rows[:5]}).encode()
    with socket.create_connection(("127.0.0.1", service.port), 60) as connection:
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body[:10])
        # The service has begun this request before it answers a later one.
        assert service.status("/health/live") == 200
        service.process.send_signal(signal.SIGTERM)
        wait_for_refusal(service.port)
        connection.sendall(body[10:])
        answer = b""
        while part := connection.recv(65_536):
            answer += part
    assert service.process.wait(60) is not None
    header, _, content = answer.partition(b"\r\n\r\n")
    assert header.startswith(b"HTTP/1.1 200"), answer
    return json.loads(content)


def wait_for_refusal(port: int) -> None:
    """Wait until nobody listens on a port any more."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.05)
    pytest.fail(f"port {port} is still open")


def test_without_a_token_only_this_machine_can_connect(
    registry: Registry, tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    root = checkout(tmp_path / "open")
    variables = {
        "SERVING_TOKEN": "",
        "SERVING_HOST": "0.0.0.0",
        "PIPELINE_LOGGING__JSON_LINES": "1",
    }
    with serving(root, registry, **variables) as service:
        service.wait_until_ready()
        url = f"http://127.0.0.1:{service.port}/predict"
        assert httpx.post(url, json={"rows": rows[:1]}, trust_env=False).status_code == 200
        lines = service.log.read_text().splitlines()
        listening = [json.loads(line)["message"] for line in lines if line.startswith("{")]
    assert any("SERVING_TOKEN is not set: only this machine can connect" in m for m in listening)
    assert any(f"http://127.0.0.1:{service.port}" in message for message in listening)
