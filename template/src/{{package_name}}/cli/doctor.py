"""Doctor: check everything that the pipelines need, and say how to fix what is missing.

An engine adds its own checks in `orchestration/ENGINE/checks.py`, with a function `checks`.
"""

from __future__ import annotations

import os
import platform
import queue
import shutil
import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from .. import alerts
from ..core import optional, registry, shared_state, storage, tracking
from ..core.checks import Check, port_state
from ..core.errors import UpdateError
from ..core.paths import project_root
from ..core.redact import redact
from ..core.settings import load_environment, load_settings
from ..sources.files import list_partitions
from .update import find_versions

if TYPE_CHECKING:
    from rich.table import Table

CHECK_SECONDS = 15.0
TOTAL_SECONDS = 25.0
_TEMPLATE_SECONDS = 6.0
_LONGEST_DETAIL = 600
_PASSED, _ADVICE, _FAILED = ("✓", "green"), ("!", "yellow"), ("✗", "red")


class Advice(Exception):
    """Raised by a probe when nothing is broken, but something is left to do."""


@dataclass(frozen=True)
class Probe:
    """One question and how to fix a bad answer.

    Attributes:
        find: Returns what it found, or finished checks where it makes several; an exception means
            that the check failed.
    """

    name: str
    fix: str
    find: Callable[[], str | list[Check]]


def run_checks(send: bool = False, on_start: Callable[[str], object] = str) -> list[Check]:
    """Run all checks; never raises, and ends within about `TOTAL_SECONDS`.

    Args:
        send: Send a real test message through every configured channel.
        on_start: Told the name of each check before it runs.
    """
    deadline = time.monotonic() + TOTAL_SECONDS
    checks: list[Check] = []
    for probe in probes(send):
        on_start(probe.name)
        checks += ask(probe, min(CHECK_SECONDS, deadline - time.monotonic()))
    return checks


def render(checks: Sequence[Check]) -> Table:
    """Return the checks as a table for the terminal; what is to be done stands below its line."""
    from rich.table import Table
    from rich.text import Text

    table = Table("", "check", "result", box=None, padding=(0, 2, 0, 0))
    for check in checks:
        mark, style = _PASSED if check.ok else _FAILED
        if check.ok and check.fix:
            mark, style = _ADVICE
        result = Text(check.detail)
        if check.fix:
            result.append(f"\n→ {check.fix}", style=style)
        table.add_row(Text(mark, style=style), check.name, result)
    return table


def exit_status(checks: Sequence[Check]) -> int:
    """Return 1 when a check failed, else 0; advice does not count."""
    return 0 if all(check.ok for check in checks) else 1


def probes(send: bool = False) -> Iterator[Probe]:
    """Yield all probes, quick and local ones first; `send` as for `run_checks`."""
    yield Probe("Python", "run `uv sync`, which makes .venv with a Python that fits", _python)
    yield Probe("settings", "correct what is named", _settings)
    yield Probe(
        "data",
        "put one file per day there, named as [data] in config/pipeline.toml says, or change it",
        _data,
    )
    yield Probe("artefact store", "make [storage] root a folder or bucket you may write", _store)
    yield Probe("workers", "correct what is named in .env", _workers)
    yield Probe(
        "git",
        "run `git init && git add --all && git commit -m Start`: runs then record their commit",
        _git,
    )
    yield Probe("template", "run `uv run poe update`", _template)
    yield Probe(
        "MLflow",
        "start the server, or correct MLFLOW_TRACKING_URI in .env",
        _mlflow,
    )
    yield Probe("champion", "train one: `uv run poe run`", _champion)
    for name in alerts.channel_names():
        yield Probe(
            f"alerts: {name}",
            "set its variables in .env, as .env.example shows",
            partial(_channel, name),
        )
    if send:
        yield Probe("test messages", "configure a channel first", _test_messages)
    yield Probe(
        "undelivered alerts",
        "read var/alerts/undelivered.jsonl, repair the channel, then remove the file",
        _undelivered,
    )
    yield Probe(
        "MLflow UI", "stop that program, or set MLFLOW_PORT in .env to a free port", _mlflow_port
    )
    for engine in optional.folders("orchestration"):
        yield Probe(engine, "run `uv sync`, then read the error above", partial(_engine, engine))


def ask(probe: Probe, seconds: float = CHECK_SECONDS) -> list[Check]:
    """Run one probe; never raises, and never takes longer than `seconds`."""
    outcome: queue.SimpleQueue[list[Check]] = queue.SimpleQueue()
    # A call that hangs cannot be stopped, only left behind.
    threading.Thread(target=lambda: outcome.put(_answer(probe)), daemon=True).start()
    try:
        return outcome.get(timeout=max(0.0, seconds))
    except queue.Empty:
        late = f"no answer within {max(0.0, seconds):.1f} s"
        return [Check(probe.name, False, late, probe.fix)]


def _answer(probe: Probe) -> list[Check]:
    try:
        outcome = probe.find()
    except Advice as advice:
        return [Check(probe.name, True, str(advice), probe.fix)]
    except BaseException as error:
        detail = redact(f"{type(error).__name__}: {error}")
        if len(detail) > _LONGEST_DETAIL:
            detail = detail[:_LONGEST_DETAIL] + "…"
        return [Check(probe.name, False, detail, probe.fix)]
    return outcome if isinstance(outcome, list) else [Check(probe.name, True, outcome)]


def _python() -> str:
    from packaging.specifiers import SpecifierSet

    running = platform.python_version()
    file = project_root() / "pyproject.toml"
    if not file.exists():
        return running
    wanted = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["requires-python"]
    if not SpecifierSet(wanted).contains(running, prereleases=True):
        raise RuntimeError(f"this is Python {running}, and the project wants {wanted}")
    return f"{running}, wanted {wanted}"


def _settings() -> str:
    return f"config/pipeline.toml of '{load_settings().project.slug}' is readable"


def _data() -> str:
    settings = load_settings()
    partitions = list_partitions(settings)
    if not partitions:
        raise FileNotFoundError(
            f"no partition at '{settings.data.source}' matches '{settings.data.file}'"
        )
    first, newest = partitions[0], partitions[-1]
    return f"{len(partitions)} partitions at {settings.data.source}, {first} to {newest}"


def _store() -> str:
    probe = storage.artifact_path(f"doctor-{os.getpid()}.txt")
    storage.write_text(probe, "doctor")
    try:
        if probe.read_text() != "doctor":
            raise OSError("what was read is not what was written")
    finally:
        probe.unlink()
    return f"{load_settings().storage.root} takes files and gives them back"


def _workers() -> str:
    shared_state.require_shared_state()
    distributed = load_settings().workers.distributed
    return "on many machines, sharing artefacts and MLflow" if distributed else "on this machine"


def _git() -> str:
    if shutil.which("git") is None:
        raise Advice("git is not installed, so runs cannot record the commit of their code")
    tags = tracking.git_tags()
    if not tags:
        raise Advice("no commit yet, so runs cannot record the commit of their code")
    changed = " and uncommitted changes" if tags["git.dirty"] == "true" else ""
    return f"commit {tags['mlflow.source.git.commit'][:10]}{changed}"


def _template() -> str:
    try:
        versions = find_versions(project_root(), _TEMPLATE_SECONDS)
    except UpdateError as error:
        return f"not compared: {error}"
    if versions.behind:
        raise Advice(f"this project is at {versions.current}, and {versions.newest} is out")
    return f"{versions.current}, the newest"


def _reach_mlflow() -> None:
    uri = tracking.tracking_uri()
    if uri.startswith("http"):
        import httpx

        # MLflow itself would try for minutes.
        httpx.get(f"{uri.rstrip('/')}/health", timeout=5)


def _mlflow() -> str:
    _reach_mlflow()
    client = tracking.client()
    started = time.perf_counter()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    client.set_experiment_tag(tracking.experiment_id(), "doctor", now)
    return f"{redact(tracking.tracking_uri())} written in {time.perf_counter() - started:.2f} s"


def _champion() -> str:
    _reach_mlflow()
    champion = registry.version_of(registry.CHAMPION)
    if champion is None:
        raise Advice(f"'{registry.model_name()}' has none yet")
    return f"'{registry.model_name()}' version {champion.version}"


def _channel(name: str) -> str:
    channel = alerts.load_channel(name)
    if not channel.configured():
        raise Advice("not configured, so nobody is told there")
    return channel.describe()


def _test_messages() -> list[Check]:
    deliveries = alerts.send(alerts.Event.test())
    if not deliveries:
        raise RuntimeError("no channel is configured")
    return [
        Check(f"test message: {delivery.channel}", True, "sent")
        if delivery.error is None
        else Check(
            f"test message: {delivery.channel}",
            False,
            delivery.error,
            "correct the channel's variables in .env",
        )
        for delivery in deliveries
    ]


def _undelivered() -> str:
    count = alerts.undelivered()
    if count:
        raise RuntimeError(f"{count} did not arrive")
    return "none"


def _mlflow_port() -> str:
    load_environment()
    return port_state(int(os.environ.get("MLFLOW_PORT", "5000")), "/health", "OK")


def _engine(name: str) -> list[Check]:
    checks: list[Check] = optional.load(f"orchestration.{name}.checks").checks()
    return checks
