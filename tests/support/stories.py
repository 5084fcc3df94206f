"""What the stories on real servers share: `poe up` of a project, with somebody to tell."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any, TypeVar

import psutil
import trustme
from receivers import Mailbox, Webhook, free_port, mailbox, webhook

from .projects import Project, children_of, runs_of, training_result

T = TypeVar("T")

CANDIDATES = {"linear", "random_forest", "xgboost"}

# Lines of config/pipeline.toml that make a story quick, and give inference a schedule.
QUICK = {
    "trials = 5 ": "trials = 2 ",
    "retry_delay_seconds = 30": "retry_delay_seconds = 1",
    "retries = 2": "retries = 1",
    "wait_interval_seconds = 60": "wait_interval_seconds = 2",
    'inference = "" ': 'inference = "0 6 * * *" ',
}


def wait_for(probe: Callable[[], T | None], seconds: float, what: str) -> T:
    """Return what `probe` finds as soon as it finds something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (found := probe()) is not None:
            return found
        time.sleep(1)
    raise AssertionError(f"waited {seconds:g} s in vain for {what}")


def ready(log: Path, up: subprocess.Popen[bytes]) -> object:
    """Return something once `poe up` has printed where everything is."""
    assert up.poll() is None, log.read_text()
    return "Ctrl-C" in log.read_text() or None


@dataclass
class Running:
    """A project under `poe up`, and where its alerts arrive.

    Attributes:
        log: What `poe up` prints.
    """

    up: subprocess.Popen[bytes]
    log: Path
    slack: Webhook
    mail: Mailbox

    def family(self) -> list[psutil.Process]:
        """Return the processes of `poe up` that live now."""
        return psutil.Process(self.up.pid).children(recursive=True)

    def open_to_others(self) -> list[tuple[str, int]]:
        """Return the addresses that other machines reach."""
        found = []
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                sockets = process.net_connections(kind="inet")
                found += [(*one.laddr,) for one in sockets if one.status == psutil.CONN_LISTEN]
        return [(address, port) for address, port in found if address not in ("127.0.0.1", "::1")]


@contextmanager
def running(
    project: Project,
    config: dict[str, str],
    variables: dict[str, str],
    is_ready: Callable[[Path, subprocess.Popen[bytes]], object] = ready,
    stops_within: float = 20,
) -> Iterator[Running]:
    """Run `poe up` of a project that reports to a local webhook and mail server.

    At the end Ctrl-C must stop all processes.

    Args:
        project: The project.
        config: Lines of config/pipeline.toml and what takes their place.
        variables: What `.env` holds besides the channels' variables.
        is_ready: Given the log and the process; returns something once it is up.
        stops_within: Seconds that the last process may take after `poe up` itself has ended.
    """
    for old, new in config.items():
        project.edit_config(old, new)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(project.path / "ca.pem"))
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_context)
    with webhook() as slack, mailbox("starttls", server_context) as mail:
        environment = {
            "SLACK_WEBHOOK_URL": slack.url,
            "SMTP_HOST": "localhost",
            "SMTP_PORT": f"{mail.port}",
            "SMTP_FROM": "pipeline@example.org",
            "SMTP_TO": "team@example.org",
            "SMTP_CA_FILE": str(project.path / "ca.pem"),
            "MLFLOW_PORT": f"{free_port()}",
            **variables,
        }
        lines = [f"{name}={value}" for name, value in environment.items()]
        (project.path / ".env").write_text("\n".join(lines) + "\n")
        log = project.path / "up.log"
        with log.open("w") as stream:
            up = subprocess.Popen(
                ["uv", "run", "--python", project.python, "poe", "up"],
                cwd=project.path,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        story = Running(up, log, slack, mail)
        family: set[psutil.Process] = set()
        try:
            wait_for(lambda: is_ready(log, up), 240, "poe up to be ready")
            # Also those whose parent ends before they do.
            family |= set(story.family())
            yield story
            assert story.open_to_others() == []
            family |= set(story.family())
        finally:
            os.killpg(up.pid, signal.SIGINT)
            up.wait(timeout=60)
        # Whatever is left over would fail the next start on its port.
        _, alive = psutil.wait_procs(family, timeout=stops_within)
        assert alive == []
        assert "stopping" in log.read_text()


@dataclass
class Told:
    """What a project has told since it began to be listened to."""

    story: Story
    slack_before: int
    mail_before: int

    @property
    def slack(self) -> list[str]:
        """What was posted."""
        return [body.decode() for body in self.story.slack.bodies[self.slack_before :]]

    @property
    def mail(self) -> list[EmailMessage]:
        """What was mailed."""
        return self.story.mail.messages[self.mail_before :]


@dataclass
class Story:
    """A running project, with those whom it tells."""

    project: Project
    slack: Webhook
    mail: Mailbox

    def listen(self) -> Told:
        """Begin to listen to what is told."""
        return Told(self, len(self.slack.bodies), len(self.mail.messages))

    def scored(self, *days: str) -> bool | None:
        """Return whether there are predictions for some days."""
        predictions = self.project.path / "var" / "artifacts" / "predictions"
        return all((predictions / f"{day}.parquet").exists() for day in days) or None

    @contextmanager
    def broken(self, day: str) -> Iterator[None]:
        """Cut off the second half of a day's file as long as the block runs."""
        path = self.project.path / "data" / "sample" / f"{day}.parquet"
        good = path.read_bytes()
        path.write_bytes(good[: len(good) // 2])
        # Nobody waits for the rest of an old file.
        os.utime(path, (0, 0))
        try:
            yield
        finally:
            path.write_bytes(good)

    def newest(self, pipeline: str) -> dict[str, Any]:
        """Return the newest MLflow run of a pipeline."""
        return runs_of(self.project.mlflow(), pipeline)[0]


def assert_first_champion(story: Story) -> dict[str, Any]:
    """Assert that the only run so far trained a champion and told of it; returns `mlflow`'s."""
    mlflow = story.project.mlflow()
    [parent] = runs_of(mlflow, "training")
    assert parent["status"] == "FINISHED"
    assert {"report.html", "environment.txt"} <= set(parent["artifacts"])
    assert set(children_of(mlflow, parent)) == CANDIDATES
    assert mlflow["versions"] == [1]
    assert mlflow["aliases"] == {"champion": 1}
    # One message a channel: the new champion.
    assert len(story.slack.bodies) == len(story.mail.messages) == 1
    assert "New champion" in json.loads(story.slack.bodies[0])["text"]
    return mlflow


def assert_rejected(
    told: Told, before: dict[str, Any], pipeline: str, stage: str, day: str
) -> None:
    """Assert that a day was rejected, each channel told of it once, and the champion stayed."""
    after = told.story.project.mlflow()
    assert after["aliases"] == before["aliases"]
    assert after["versions"] == before["versions"]
    assert runs_of(after, pipeline)[0]["status"] == "FAILED"

    [posted] = told.slack
    [mailed] = told.mail
    assert told.story.mail.encrypted[-1]
    for text in (posted, mailed.get_content()):
        for fact in ("Flight Delays", stage, "unreadable_file", day):
            assert fact in text
    assert "Data rejected" in mailed["Subject"]


def assert_recovered(told: Told) -> dict[str, Any]:
    """Assert that the newest training went well in the end, and return its MLflow run."""
    mlflow = told.story.project.mlflow()
    parent = runs_of(mlflow, "training")[0]
    assert parent["status"] == "FINISHED"
    assert set(children_of(mlflow, parent)) == CANDIDATES
    # A try that is followed by another is no failure: at most a new champion is told of.
    assert all("New champion" in text for text in told.slack)
    return parent


def assert_timed_out(told: Told, *facts: str) -> None:
    """Assert that the newest training failed at its time limit, and was told of once."""
    assert told.story.newest("training")["status"] == "FAILED"
    [posted] = told.slack
    for fact in facts:
        assert fact in posted


def assert_retrained(told: Told, run: str, day: str) -> None:
    """Assert that the drift of a day was told of once, and that a run trained for that day."""
    [drift] = [text for text in told.slack if "Drift" in text]
    assert day in drift
    tags = told.story.newest("training")["tags"]
    assert tags["pipeline.run_key"] == f"training-{run}"
    assert tags["pipeline.partition"] == day


def assert_two_workers_trained(project: Project, logs: list[Path]) -> None:
    """Assert that both of two Celery workers took part in the only run, and shared all of it."""
    found = project.mlflow()
    assert found["aliases"] == {"champion": 1}
    [parent] = runs_of(found, "training")
    assert parent["status"] == "FINISHED"
    assert set(children_of(found, parent)) == CANDIDATES
    done = ["succeeded in" in log.read_text() for log in logs]
    assert all(done), [log.read_text()[-2000:] for log in logs]
    # Nothing that steps share was written to this machine's disk.
    assert not (project.path / "var" / "artifacts").exists()
    assert not (project.path / "var" / "mlflow").exists()
    assert training_result(found) == training_result(project.run_alone("2013-01-31"))
