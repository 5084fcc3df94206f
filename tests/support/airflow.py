"""Airflow's REST interface."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from .stories import wait_for

TRAINING, INFERENCE = "flight_delays_training", "flight_delays_inference"


@dataclass
class Airflow:
    """The REST interface of the running server."""

    client: httpx.Client

    def get(self, path: str) -> dict[str, Any]:
        """Return the answer to a GET."""
        answer: dict[str, Any] = self.client.get(path).raise_for_status().json()
        return answer

    def change(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a request that writes.

        SQLite takes one writer at a time: a server whose database is locked answers 503, or 500.
        """

        def answered() -> httpx.Response | None:
            answer = self.client.request(method, path, json=body)
            return None if answer.status_code in (500, 503) else answer

        done: dict[str, Any] = wait_for(answered, 300, f"{path}").raise_for_status().json()
        return done

    def pause(self, dag: str, paused: bool) -> None:
        """Let the scheduler run a DAG, or keep it from doing so."""
        self.change("PATCH", f"/dags/{dag}", {"is_paused": paused})

    def trigger(self, dag: str, **conf: str) -> str:
        """Start a run by hand and return its id."""
        started = self.change("POST", f"/dags/{dag}/dagRuns", {"logical_date": None, "conf": conf})
        return str(started["dag_run_id"])

    def result(self, dag: str, run: str) -> str:
        """Wait for a run to end and return its state."""

        def ended() -> str | None:
            state = self.get(f"/dags/{dag}/dagRuns/{run}")["state"]
            return str(state) if state in ("success", "failed") else None

        return wait_for(ended, 400, f"{dag} {run} to end")

    def tasks(self, dag: str, run: str) -> dict[str, dict[str, Any]]:
        """Return the task instances of a run by name; mapped ones as `task[name]`."""
        found = self.get(f"/dags/{dag}/dagRuns/{run}/taskInstances")["task_instances"]
        return {_name(task): task for task in found}


def _name(task: dict[str, Any]) -> str:
    mapped = f"[{task['rendered_map_index']}]" if task["map_index"] >= 0 else ""
    return f"{task['task_id']}{mapped}"


def log_in(log: Path, up: subprocess.Popen[bytes]) -> str | None:
    """Return the password of the log-in that `poe up` prints."""
    assert up.poll() is None, log.read_text()
    found = re.search(r"admin / (\S+)", log.read_text())
    return found[1] if found else None


def open_client(log: Path, port: str) -> httpx.Client:
    """Return a client of the REST interface, logged in as `poe up` says."""
    found = re.search(r"admin / (\S+)", log.read_text())
    assert found
    return connect(f"http://127.0.0.1:{port}", found[1])


def connect(address: str, password: str) -> httpx.Client:
    """Return a client of the REST interface, logged in as its administrator."""
    login = {"username": "admin", "password": password}
    token = httpx.post(f"{address}/auth/token", json=login, timeout=60)
    headers = {"Authorization": f"Bearer {token.raise_for_status().json()['access_token']}"}
    return httpx.Client(base_url=f"{address}/api/v2", headers=headers, timeout=60)
