"""A project that is drilled: its commands, its state, and what must be so after each drill."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from receivers import Mailbox

# Small runs: what they do is the same. Each other model is promoted, so that champions change.
SMALL = {
    "PIPELINE_TRAINING__WINDOW": "4",
    "PIPELINE_TRAINING__WIDER_WINDOW": "5",
    "PIPELINE_TRAINING__HOLDOUT": "1",
    "PIPELINE_TRAINING__TRIALS": "1",
    "PIPELINE_TRAINING__CANDIDATES": '["linear", "xgboost"]',
    "PIPELINE_GATES__MIN_IMPROVEMENT": "-1e9",
    "PIPELINE_DATA__SETTLE_SECONDS": "0",
    "OMP_NUM_THREADS": "1",
    "SMTP_HOST": "127.0.0.1",
    "SMTP_SECURITY": "none",
    "SMTP_FROM": "pipeline@example.org",
    "SMTP_TO": "team@example.org",
}
FOREIGN = ("PIPELINE_", "MLFLOW_", "SMTP_", "SLACK_", "DAGSTER_", "VIRTUAL_ENV", "PYTHONPATH")
# A command that takes longer hangs.
PATIENCE_SECONDS = 300.0

# In the project's own words: its runs in MLflow (status, key, whether another closes it), the
# champion and the one before, and what each version replaced.
FACTS = """
import json
from {package}.core import closing, registry, tracking
def closed(tags):
    return closing.REASON_TAG in tags or tracking.PARENT_TAG in tags
def replaced(version):
    succession = registry.succession_of(version)
    return succession and succession.replaces
runs = tracking.client().search_runs([tracking.experiment_id()])
print(json.dumps({{
    "runs": {{run.info.run_id: [run.info.status, run.data.tags.get(tracking.RUN_KEY_TAG, ""),
              closed(run.data.tags)] for run in runs}},
    "versions": registry.versions(),
    "replaced": {{int(one.version): replaced(one) for one in registry.registered()}},
    "unannounced": registry.unannounced() is not None,
}}))
"""


class BrokenError(Exception):
    """What must be so after a drill, and is not."""


class Site:
    """An installed project, the process that runs its commands, and where its alerts arrive."""

    def __init__(self, path: Path, mail: Mailbox, chance: random.Random) -> None:
        answers = yaml.safe_load((path / ".copier-answers.yml").read_text())
        self.path, self.mail, self.chance = path, mail, chance
        self.package = answers["package_name"]
        self.var, self.log = path / "var", path / "drill.log"
        days = sorted(file.stem for file in (path / "data" / "sample").glob("*.parquet"))
        self.reference, self.days = days[-1], days[5:-1]
        # What was trained last.
        self.last = self.days[0]
        self.running: set[int] = set()
        self.seconds: dict[str, float] = {}
        # What each version predicted for the reference partition.
        self.predicted: dict[int, bytes] = {}
        own = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        self.host = subprocess.Popen(
            [".venv/bin/python", Path(__file__).with_name("host.py"), self.package],
            cwd=path,
            env=own | SMALL,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def close(self) -> None:
        """End what still runs, as after Ctrl-C, and the process that runs its commands."""
        for number in self.running:
            with suppress(ProcessLookupError):
                os.killpg(number, signal.SIGKILL)
        self.host.communicate()

    def start(self, *arguments: str, log: Path | None = None, smtp_port: int | None = None) -> int:
        """Start a command; returns the number of its process group."""
        variables = {"SMTP_PORT": f"{smtp_port or self.mail.port}"}
        asked = {"start": arguments, "log": f"{log or self.log}", "variables": variables}
        number = int(self._ask(asked))
        self.running.add(number)
        return number

    def ended(self, number: int, seconds: float = PATIENCE_SECONDS) -> int | None:
        """Return the exit code of a command; None where it still runs after so many seconds."""
        code: int | None = self._ask({"wait": number, "seconds": seconds})
        if code is not None:
            self.running.discard(number)
        return code

    def wait(self, number: int) -> int:
        """Return the exit code of a command."""
        code = self.ended(number)
        if code is None:
            os.killpg(number, signal.SIGKILL)
            self.ended(number)
            raise BrokenError(f"it hangs: {self.said}")
        return code

    def run(self, *arguments: str, smtp_port: int | None = None) -> int:
        """Run a command and return its exit code; what it shows is in the log."""
        return self.wait(self.start(*arguments, smtp_port=smtp_port))

    def good(self, pipeline: str, partition: str) -> None:
        """Run a pipeline, which must end well."""
        began = time.monotonic()
        if code := self.run("run", pipeline, "--partition", partition):
            raise BrokenError(f"{pipeline} of {partition} ends with {code}: {self.said}")
        self.seconds[pipeline] = time.monotonic() - began

    def signal_in(self, pipeline: str, partition: str, number: int) -> int:
        """Send a run a signal at a random moment; returns its exit code."""
        process = self.start("run", pipeline, "--partition", partition)
        time.sleep(self.chance.uniform(0.05, self.seconds[pipeline]))
        with suppress(ProcessLookupError):
            os.killpg(process, number)
        return self.wait(process)

    def facts(self) -> dict[str, Any]:
        """Return what the project says of its state."""
        if self.run("-c", FACTS.format(package=self.package)):
            raise BrokenError(f"the store cannot be read: {self.said}")
        found: dict[str, Any] = json.loads(self.log.read_text().splitlines()[-1])
        return found

    def told(self, kind: str = "Failed") -> int:
        """Return how many alerts of a kind have arrived."""
        return sum(message["Subject"].startswith(kind) for message in self.mail.messages)

    @property
    def said(self) -> str:
        """The end of what the last command showed, in one line."""
        return " ".join(self.log.read_text(errors="replace").split())[-300:]

    @property
    def hit(self) -> str:
        """In which stage the last command ended."""
        ended = re.findall(r"(\S+)\] (started|finished)", self.log.read_text(errors="replace"))
        return " ".join(ended[-1]).replace("started", "at work") if ended else "start at work"

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self.host.stdin
        print(json.dumps(request), file=self.host.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        assert self.host.stdout
        return json.loads(self.host.stdout.readline())


def judge(site: Site, before: dict[str, Any], partition: str) -> None:
    """Run as on any day, and hold the state of the project against what must be so."""
    site.good("training", partition)
    site.good("inference", site.reference)
    now = site.facts()
    if left := [key for status, key, _ in now["runs"].values() if status == "RUNNING"]:
        raise BrokenError(f"MLflow runs are left RUNNING: {', '.join(left)}")
    champion, previous = now["versions"]
    if champion is None or previous == champion:
        raise BrokenError(f"champion is {champion}, previous {previous}")
    # A rollback leads, step by step, to the champion that was there.
    chain = [champion]
    while (one := now["replaced"][str(chain[-1])]) and one not in chain:
        chain.append(one)
    if before["versions"][0] not in [*chain, None]:
        raise BrokenError(f"a rollback leads to {chain}, not to version {before['versions'][0]}")
    if now["unannounced"]:
        raise BrokenError(f"nobody was told of version {champion}")
    same_predictions(site, champion)
    told = "".join(message.get_content() for message in site.mail.messages)
    for run in now["runs"].keys() - before["runs"].keys():
        status, key, closed_by_another = now["runs"][run]
        if status != "FINISHED" and not closed_by_another and key not in told:
            raise BrokenError(f"no alert of {key}, which is {status}")
    if site.run("doctor"):
        raise BrokenError(f"doctor: {site.said}")


def same_predictions(site: Site, champion: int) -> None:
    """Hold the reference partition's predictions against earlier ones of the same champion."""
    made = (site.var / "artifacts" / "predictions" / f"{site.reference}.parquet").read_bytes()
    if site.predicted.setdefault(champion, made) != made:
        raise BrokenError(f"version {champion} predicts something else than before")
