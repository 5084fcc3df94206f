"""Prefect's REST interface."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import httpx
import psutil

from .stories import wait_for


@dataclass
class Prefect:
    """The REST interface of the running server."""

    address: str
    login: tuple[str, str] | None = None

    @property
    def client(self) -> httpx.Client:
        """A client of the API."""
        return httpx.Client(
            base_url=f"{self.address}/api", auth=self.login, timeout=60, trust_env=False
        )

    def get(self, path: str) -> dict[str, Any]:
        """Return the answer to a GET."""
        answer: dict[str, Any] = self.client.get(path).raise_for_status().json()
        return answer

    def find(self, kind: str, **filters: Any) -> list[dict[str, Any]]:
        """Return what a filter finds, like `flow_runs`."""
        answer = self.client.post(f"/{kind}/filter", json=filters).raise_for_status()
        found: list[dict[str, Any]] = answer.json()
        return found

    def deployment(self, name: str) -> dict[str, Any]:
        """Return a deployment."""
        return self.get(f"/deployments/name/{name}/{name}")

    def launch(self, name: str, **parameters: str) -> str:
        """Start a run of a deployment and return its id."""
        path = f"/deployments/{self.deployment(name)['id']}/create_flow_run"
        wanted = {"parameters": parameters, "idempotency_key": secrets.token_hex(8)}

        def created() -> str | None:
            answer = self.client.post(path, json=wanted)
            # SQLite is locked by another request: Prefect's own client tries again, too.
            return None if answer.status_code == 503 else answer.raise_for_status().json()["id"]

        return wait_for(created, 300, "a run to be created")

    def result(self, run: str, *ends: str) -> dict[str, Any]:
        """Wait for a run to end and return it; one that crashed is expected to be tried again."""

        def ended() -> dict[str, Any] | None:
            found = self.get(f"/flow_runs/{run}")
            return found if found["state_name"] in (ends or ("Completed", "Failed")) else None

        return wait_for(ended, 300, f"{run} to end")

    def tasks(self, run: str) -> dict[str, dict[str, Any]]:
        """Return the task runs of a run by name; of several tries of the run, the newest."""
        found = self.find(
            "task_runs", flow_runs={"id": {"any_": [run]}}, sort="EXPECTED_START_TIME_ASC"
        )
        return {task["name"]: task for task in found}


def process_of(prefect: Prefect, run: str) -> psutil.Process | None:
    """Return the process of a run that is under way."""
    found = prefect.get(f"/flow_runs/{run}")
    if found["state_type"] != "RUNNING" or not found["infrastructure_pid"]:
        return None
    return psutil.Process(int(found["infrastructure_pid"].rpartition(":")[2]))
