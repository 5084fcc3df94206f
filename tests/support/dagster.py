"""Dagster's GraphQL interface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from .stories import wait_for

ENDED = ("SUCCESS", "FAILURE", "CANCELED")
EVENTS = """
query($run: ID!) { logsForRun(runId: $run) { ... on EventConnection { events {
  __typename ... on MessageEvent { stepKey message }
  ... on StepWorkerStartedEvent { metadataEntries { label ... on TextMetadataEntry { text } } }
  ... on AssetCheckEvaluationEvent { evaluation { checkName success } }
} } } }
"""
RUNS = """
query($filter: RunsFilter) { runsOrError(filter: $filter) { ... on Runs { results {
  runId status jobName tags { key value }
} } } }
"""


@dataclass
class Dagster:
    """The GraphQL interface of the running server."""

    address: str
    # What Dagster calls the code it loads; after its address where a code server holds it.
    location: str = "flight_delays.definitions"

    @property
    def repository(self) -> dict[str, str]:
        """Name the repository, as queries want it."""
        return {"repositoryLocationName": self.location, "repositoryName": "__repository__"}

    def ask(self, query: str, **variables: Any) -> Any:
        """Return the answer to a query, without its outer braces."""
        answer = httpx.post(
            f"{self.address}/graphql",
            json={"query": query, "variables": variables},
            timeout=60,
            trust_env=False,
        ).json()
        assert "errors" not in answer, answer
        [found] = answer["data"].values()
        return found

    def launch(self, job: str, partition: str) -> str:
        """Start a run and return its id."""
        query = """mutation($given: ExecutionParams!) { launchRun(executionParams: $given) {
            __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }
        """
        tags = [{"key": "dagster/partition", "value": partition}]
        given = {
            "selector": {**self.repository, "jobName": job},
            "mode": "default",
            "executionMetadata": {"tags": tags},
        }
        answer = self.ask(query, given=given)
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def backfill(self, job: str, *partitions: str) -> None:
        """Run a job for each of some partitions."""
        query = """mutation($given: LaunchBackfillParams!) {
            launchPartitionBackfill(backfillParams: $given) {
            __typename ... on PythonError { message } } }
        """
        selector = {
            "partitionSetName": f"{job}_partition_set",
            "repositorySelector": self.repository,
        }
        answer = self.ask(query, given={"selector": selector, "partitionNames": partitions})
        assert answer["__typename"] == "LaunchBackfillSuccess", answer

    def runs(self, job: str, **tags: str) -> list[dict[str, Any]]:
        """Return the runs of a job, newest first; their tags as a dictionary."""
        wanted = [{"key": key, "value": value} for key, value in tags.items()]
        found = self.ask(RUNS, filter={"pipelineName": job, "tags": wanted})["results"]
        return [run | {"tags": {t["key"]: t["value"] for t in run["tags"]}} for run in found]

    def events(self, run: str, kind: str) -> list[dict[str, Any]]:
        """Return a run's events of one type."""
        events = self.ask(EVENTS, run=run)["events"]
        return [event for event in events if event["__typename"] == kind]

    def result(self, job: str, run: str) -> str:
        """Wait for a run and for its report, and return how the run ended."""

        def ended() -> str | None:
            [found] = [one for one in self.runs(job) if one["runId"] == run]
            return str(found["status"]) if found["status"] in ENDED else None

        def reported() -> bool | None:
            return [one["status"] for one in self.runs("report", reports=run)] == [
                "SUCCESS"
            ] or None

        status = wait_for(ended, 300, f"{job} {run} to end")
        wait_for(reported, 300, f"the report of {job} {run}")
        return status
