"""Doctor: check everything that the pipelines need, and say how to fix what is missing.

An engine adds its own checks in `orchestration/ENGINE/checks.py`, with a function `checks`.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from .. import alerts
from ..core import optional, registry, shared_state, storage, tracking
from ..core.attempt import attempt
from ..core.checks import Advice, Check, Probe, port_probe
from ..core.errors import UpdateError
from ..core.paths import project_root
from ..core.redact import redact
from ..core.settings import load_settings
from ..interface import advice, check_domain, load_features, load_problem, load_schema
from ..sources import require_partitions
from ..sources.reference import load_labels, load_references
from .update import find_versions

if TYPE_CHECKING:
    from rich.table import Table

CHECK_SECONDS = 15.0
TOTAL_SECONDS = 25.0
_TEMPLATE_SECONDS = 6.0
_UNDELIVERED = (
    "correct what is named, then run `uv run poe flush`, or `uv run poe flush --refused` where a "
    "server refused them; they are in var/alerts/outbox"
)


def run_checks(send: bool = False) -> list[Check]:
    """Run all checks; with `send` also send real test messages through every channel.

    Never raises, and ends within about `TOTAL_SECONDS`.
    """
    deadline = time.monotonic() + TOTAL_SECONDS
    checks: list[Check] = []
    for probe in probes(send):
        checks += ask(probe, min(CHECK_SECONDS, deadline - time.monotonic()))
    return checks


def render(checks: Sequence[Check]) -> Table:
    """Return the checks as a table for the terminal; how to fix one is below its line."""
    from rich.table import Table
    from rich.text import Text

    table = Table("", "check", "result", box=None, padding=(0, 2, 0, 0))
    for check in checks:
        mark, style = ("✓", "green") if check.ok else ("✗", "red")
        if check.ok and check.fix:
            mark, style = "!", "yellow"
        result = Text(check.detail)
        if check.fix:
            result.append(f"\n→ {check.fix}", style=style)
        table.add_row(Text(mark, style=style), check.name, result)
    return table


def probes(send: bool = False) -> list[Probe]:
    """Return all probes, quick and local ones first; `send` as for `run_checks`."""
    channels = [
        Probe(f"alerts: {name}", "set its variables: see .env.example", partial(_channel, name))
        for name in alerts.channel_names()
    ]
    engines = [
        Probe(name, "run `uv sync`, then read the error above", partial(_engine, name))
        for name in optional.folders("orchestration")
    ]
    return [
        Probe("settings", "correct what is named", _settings),
        Probe("domain", "correct what is named", _domain),
        Probe("domain tests", "write tests/domain/ for your own table", _domain_tests),
        Probe("data", "deliver partitions there, or correct [data] of the settings", _data),
        Probe("artefact store", "make [storage] root a folder or bucket you may write", _store),
        Probe("workers", "correct what is named in .env", _workers),
        Probe("git", "run `git init && git add --all . && git commit -m Start`", _git),
        Probe("template", "run `uv run poe update`", _template),
        Probe("MLflow", "start the server, or correct MLFLOW_TRACKING_URI in .env", _mlflow),
        Probe("champion", "train one: `uv run poe run`", _champion),
        *channels,
        *([TEST_MESSAGES] if send else []),
        Probe("undelivered alerts", _UNDELIVERED, _undelivered),
        port_probe("MLflow UI", "MLFLOW_PORT", 5000, "/health", "OK"),
        *engines,
    ]


def ask(probe: Probe, seconds: float) -> list[Check]:
    """Run one probe; never raises, and never takes longer than `seconds`."""
    answer = attempt({probe.name: probe.checks}, round(max(0.0, seconds), 1))[probe.name]
    if isinstance(answer, BaseException):
        return [Check(probe.name, False, f"{answer}", probe.fix)]
    return answer


def _settings() -> str:
    return f"config/pipeline.toml of '{load_settings().project.slug}' is readable"


def _domain() -> str:
    check_domain()
    problem = load_problem()
    problem.require(load_settings().training.candidates)
    if odd := advice():
        raise Advice(odd)
    return f"{len(load_features().names)} features, {len(problem.candidates)} candidates"


def _domain_tests() -> str:
    files = sorted((project_root() / "tests" / "domain").glob("*.py"))
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    named = [name for name in load_schema().contract.columns if f'"{name}"' in text]
    if not named:
        raise Advice("no test in tests/domain/ names a column of the contract in domain/schema.py")
    return f"name {len(named)} columns of the contract"


def _data() -> str:
    settings = load_settings()
    found = require_partitions(settings)
    rows = {name: table.height for name, table in load_references(settings).items()}
    if labels := load_labels(settings):
        rows["labels"] = labels.rows.height
    tables = "".join(f"; {name}: {count} rows" for name, count in rows.items())
    source = settings.data.address
    return f"{len(found)} partitions at {source}, {found[0]} to {found[-1]}{tables}"


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


def _git() -> str | list[Check]:
    if not (shutil.which("git") or os.environ.get("PIPELINE_COMMIT")):
        missing = "not on PATH, so runs cannot record the commit of their code"
        return [Check("git", True, missing, "install git; `poe update` also needs it")]
    tags = tracking.git_tags()
    if not tags:
        raise Advice("no commit found, so runs cannot record the commit of their code")
    changed = " and uncommitted changes" if tags["git.dirty"] == "true" else ""
    return f"commit {tags['mlflow.source.git.commit'][:10]}{changed}"


def _template() -> str:
    try:
        versions = find_versions(project_root(), _TEMPLATE_SECONDS)
    except UpdateError as error:
        return f"not compared: {error}"
    current, latest = versions.current_version, versions.latest_version
    if versions.update_available:
        raise Advice(f"this project is at {current}, and {latest} is out")
    return f"{current}, the newest"


def _reach_mlflow() -> None:
    uri = tracking.tracking_uri()
    if uri.startswith("http"):
        import httpx

        # MLflow itself would try for minutes.
        httpx.get(f"{uri.rstrip('/')}/health", timeout=5)


def _mlflow() -> str:
    _reach_mlflow()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    tracking.client().set_experiment_tag(tracking.experiment_id(), "doctor", now)
    return f"{redact(tracking.tracking_uri())} takes what is written"


def _champion() -> str:
    _reach_mlflow()
    champion = registry.version_of(registry.CHAMPION)
    if champion is None:
        raise Advice(f"'{registry.model_name()}' has none yet")
    # Loading a model takes seconds, which nothing else here does.
    from ..stages.score import prove

    text = f"'{registry.model_name()}' version {champion.version}"
    if not prove(champion):
        raise Advice(f"{text} loads, but what it learned from is gone, so drift is not measured")
    return f"{text} loads and predicts"


def _channel(name: str) -> str:
    channel = alerts.load_channel(name)
    if not channel.configured():
        raise Advice("not configured, so no alerts go there")
    return channel.describe()


def _test_messages() -> str:
    deliveries = alerts.send(alerts.Event.test())
    if not deliveries:
        raise RuntimeError("no channel is configured")
    if lost := [f"{each.channel}: {each.error}" for each in deliveries if not each.ok]:
        raise RuntimeError("\n".join(lost))
    return "sent through " + ", ".join(delivery.channel for delivery in deliveries)


TEST_MESSAGES = Probe("test messages", "set the channel's variables in .env", _test_messages)


def _undelivered() -> str:
    if left := alerts.backlogs():
        raise RuntimeError("\n".join(map(str, left)))
    return "none"


def flush_alerts(refused: bool) -> list[Check]:
    """Deliver the alerts that did not arrive; returns a check for each channel that had some."""
    flushed = alerts.flush(refused=refused, patient=True)
    return [
        Check(
            f"alerts: {one.channel}",
            one.left is None,
            f"{one.delivered} sent" + (f"; {one.left}" if one.left else ""),
            _UNDELIVERED if one.left else "",
        )
        for one in flushed
    ] or [Check("alerts", True, "none waits to be delivered")]


def _engine(name: str) -> list[Check]:
    return list(optional.load(f"orchestration.{name}.checks").checks())
