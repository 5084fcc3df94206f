"""Doctor's questions to Kubeflow: the pipelines and the cluster; and what a cluster is sent."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from flight_delays.core.checks import Check
from flight_delays.core.errors import SettingsError
from flight_delays.core.settings import load_settings
from flight_delays.orchestration.kubeflow import checks
from flight_delays.orchestration.kubeflow import (
    cluster as kubeflow_cluster,
)
from kfp_server_api import ApiException  # type: ignore[import-untyped]
from receivers import free_port, webhook
from sandbox import CHECKOUT


@pytest.fixture
def pipelines(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project's own copy of the folder with the definitions."""
    # On a busy machine seconds prove nothing.
    monkeypatch.setattr("flight_delays.core.checks.PROCESS_SECONDS", 300.0)
    for name in ("KFP_ENDPOINT", "KFP_TOKEN", "KFP_UI_URL"):
        monkeypatch.delenv(name, raising=False)
    return Path(shutil.copytree(CHECKOUT / "pipelines", project / "pipelines"))


def found() -> dict[str, Check]:
    """Return the checks by name."""
    return {check.name: check for check in checks.checks()}


def test_a_fresh_project_passes(pipelines: Path) -> None:
    lines = found()

    assert set(lines) == {
        "pipeline training",
        "pipeline inference",
        "local runs",
        "Kubeflow cluster",
    }
    assert all(check.ok for check in lines.values())
    assert "KFP_ENDPOINT" in lines["Kubeflow cluster"].fix


def test_each_pipeline_that_does_not_compile_is_named(pipelines: Path) -> None:
    file = pipelines / "inference.py"
    file.write_text(f"{file.read_text()}\nimport a_package_that_is_not_there\n")
    training = pipelines / "training.py"
    training.write_text(training.read_text().replace("training = define(", "other = define("))

    lines = found()

    assert "a_package_that_is_not_there" in lines["pipeline inference"].detail
    assert "defines no pipeline" in lines["pipeline training"].detail
    failed = {name for name, check in lines.items() if not check.ok}
    assert failed == {"pipeline training", "pipeline inference"}
    assert all(lines[name].fix for name in failed)


def test_a_cluster_that_does_not_answer_is_a_failure(
    pipelines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    cluster = found()["Kubeflow cluster"]
    assert not cluster.ok
    assert "KFP_TOKEN" in cluster.fix


def test_a_server_that_is_no_kubeflow_is_a_failure(
    pipelines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with webhook(answer=b"<html>") as other:
        monkeypatch.setenv("KFP_ENDPOINT", other.url.partition("/services")[0])
        assert not found()["Kubeflow cluster"].ok


# --- what a cluster is sent --------------------------------------------------------------------


class Cluster:
    """The REST interface of Kubeflow, as far as a client that uploads and schedules needs it."""

    def __init__(self) -> None:
        self.pipelines: dict[str, list[str]] = {}
        self.recurring: dict[str, dict[str, Any]] = {}
        self.runs: list[dict[str, Any]] = []
        self.url = ""
        self.takes_schedules = True
        self._number = itertools.count()

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> dict[str, Any]:  # noqa: PLR0911
        """Do what was asked for."""
        match (method, path.split("/")):
            case "POST", ["pipelines", "upload"]:
                self.pipelines[query["name"]] = []
                return {"pipeline_id": query["name"], "display_name": query["name"]}
            case "POST", ["pipelines", "upload_version"]:
                self.pipelines[query["pipelineid"]].insert(0, query["name"])
                return self._version(query["pipelineid"], query["name"])
            case "GET", ["pipelines"]:
                wanted = json.loads(query["filter"])["predicates"][0]["stringValue"]
                known = [{"pipeline_id": wanted}] if wanted in self.pipelines else None
                return {"pipelines": known}
            case "GET", ["pipelines", name, "versions"]:
                versions = [self._version(name, version) for version in self.pipelines[name]]
                return {"pipeline_versions": versions}
            case "GET", ["experiments"]:
                return {"experiments": [{"experiment_id": "e1", "display_name": "sandbox"}]}
            case "GET", ["recurringruns"]:
                found = [
                    {"recurring_run_id": key, "display_name": value["display_name"]}
                    for key, value in self.recurring.items()
                ]
                return {"recurringRuns": found}
            case "POST", ["recurringruns"]:
                self.recurring[f"r{next(self._number)}-{body['display_name']}"] = body
                return {"recurring_run_id": "new"}
            case "DELETE", ["recurringruns", key]:
                del self.recurring[key]
            case "POST", ["runs"]:
                self.runs.append(body)
                return {"run_id": f"run{len(self.runs)}"}
        return {}

    def _version(self, pipeline: str, name: str) -> dict[str, str]:
        return {"pipeline_id": pipeline, "pipeline_version_id": name, "display_name": name}


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Run a web server that answers as Kubeflow does."""
    state = Cluster()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.loads(raw) if raw[:1] == b"{" else None
            address = urlsplit(self.path)
            path = address.path.removeprefix("/apis/v2beta1/")
            is_schedule = (self.command, path) == ("POST", "recurringruns")
            refused = is_schedule and not state.takes_schedules
            answer = {}
            if not refused:
                answer = state.answer(self.command, path, dict(parse_qsl(address.query)), body)
            data = json.dumps(answer).encode()
            self.send_response(400 if refused else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_pipelines_are_uploaded_once_and_scheduled(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "training.yaml"
    file.write_text("pipelineInfo: {name: sandbox-training}")
    with cluster() as kubeflow:
        monkeypatch.setenv("KFP_ENDPOINT", kubeflow.url)
        shown = kubeflow_cluster.publish({"training": file})
        assert ("    starts", "by hand only") in shown
        assert kubeflow.recurring == {}

        monkeypatch.setenv("PIPELINE_SCHEDULE__TRAINING", "0 6 * * 1")
        load_settings.cache_clear()
        for _ in range(2):
            kubeflow_cluster.publish({"training": file})
        assert len(kubeflow.pipelines["sandbox-training"]) == 1
        [recurring] = kubeflow.recurring.values()
        assert recurring["trigger"]["cron_schedule"]["cron"] == "0 0 6 * * 1"
        assert recurring["runtime_config"]["parameters"] == {"partition": "previous"}
        assert recurring["no_catchup"]

        # What is refused, by us or by Kubeflow, leaves what is there.
        before = dict(kubeflow.recurring)
        kubeflow.takes_schedules = False
        with pytest.raises(ApiException, match="400"):
            kubeflow_cluster.publish({"training": file})
        kubeflow.takes_schedules = True
        assert kubeflow.recurring == before
        with monkeypatch.context() as patch:
            patch.setenv("PIPELINE_SCHEDULE__TIME_ZONE", "Asia/Tokyo")
            load_settings.cache_clear()
            with pytest.raises(SettingsError, match="Kubeflow counts in UTC"):
                kubeflow_cluster.publish({"training": file})
        load_settings.cache_clear()
        assert kubeflow.recurring == before

        file.write_text("pipelineInfo: {name: sandbox-training} # changed")
        kubeflow_cluster.publish({"training": file})
        assert len(kubeflow.pipelines["sandbox-training"]) == 2

        started = kubeflow_cluster.start_runs("training", ["2013-01-28", "2013-01-29"])
        assert started == ["run1", "run2"]
        assert [run["runtime_config"]["parameters"]["partition"] for run in kubeflow.runs] == [
            "2013-01-28",
            "2013-01-29",
        ]
        newest = kubeflow.pipelines["sandbox-training"][0]
        assert kubeflow.runs[0]["pipeline_version_reference"]["pipeline_version_id"] == newest
