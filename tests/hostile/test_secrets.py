"""Canary secrets: planted in every secret variable, and searched for wherever a run leaves a trace.

A run that succeeds, one that fails with a secret in its error, with and without the engine, and
doctor: then git, logs, MLflow, alerts, metrics, reports and what an image is built from are read.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import ssl
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

import pathspec
import pytest
import trustme
from receivers import free_port, mailbox, webhook

from ..support.faults import fault
from ..support.projects import Project, make_installed_project
from ..support.stories import QUICK
from ..support.template import ROOT, git

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PARTITION = "2013-01-31"
SECRET = re.compile(r"(PASSWORD|SECRET|TOKEN|KEY|WEBHOOK_URL)$")
# Where secrets of variants that are not run here are named, all of them.
TEMPLATE = ROOT / "template"
QUICK_WINDOW = {
    **QUICK,
    "\nwindow = 21": "\nwindow = 5",
    "holdout = 7": "holdout = 2",
    'inference = "0 6 * * *" ': 'inference = "" ',
    "retries = 1": "retries = 0",
}
LEAK = (
    'import os; raise ConnectionError("no answer from postgresql://me:" '
    '+ os.environ["POSTGRES_PASSWORD"] + "@db/flights, with key " '
    '+ repr(os.environ["AWS_SECRET_ACCESS_KEY"]))'
)


def secret_variables() -> set[str]:
    """Return the variables that hold a secret in any variant of the template."""
    example = (TEMPLATE / ".env.example.jinja").read_text()
    named = re.findall(r"^(?:# )?([A-Z_]+)=", example, re.MULTILINE)
    files = [*TEMPLATE.glob("compose*"), *(TEMPLATE / "deploy").rglob("*")]
    texts = [path.read_text() for path in files if path.is_file()]
    generated = [name for text in texts for name in re.findall(r"\$\{(\w+):\?", text)]
    return {name for name in named if SECRET.search(name)} | set(generated)


@dataclass(frozen=True)
class Canary:
    """A secret of a variable; its core is found whatever quotes what stands around it."""

    core: str
    value: str

    @classmethod
    def of(cls, name: str) -> Canary:
        """Return a canary of the form that the variable's readers insist on."""
        core = secrets.token_hex(12)
        if name.endswith("FERNET_KEY"):
            core = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
            return cls(core, core)
        return cls(core, f'a+{core}/%&="b')

    def is_in(self, content: bytes) -> bool:
        """Tell whether it stands there: as it is, quoted, or in base64 at any offset."""
        core = self.core.encode()
        # The first and the last characters depend on the neighbours.
        forms = [core, *(base64.b64encode(b"x" * pad + core)[4:-4] for pad in range(3))]
        return any(form in content for form in forms)


@dataclass
class Traces:
    """What the runs have left: by name, outside of the project's folder."""

    project: Project
    canaries: dict[str, Canary]
    printed: dict[str, str]
    sent: dict[str, list[bytes]]

    def found_in(self, places: dict[str, bytes]) -> list[str]:
        """Return which secret stands in which place."""
        return [
            f"{name} in {place}"
            for place, content in places.items()
            for name, canary in self.canaries.items()
            if canary.is_in(content)
        ]

    def files(self, names: list[Path]) -> dict[str, bytes]:
        """Return the content of files of the project."""
        root = self.project.path
        return {str(path.relative_to(root)): path.read_bytes() for path in names if path.is_file()}


@pytest.fixture(scope="module")
def traces(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Traces:
    """Run everything that leaves a trace, with canaries for secrets."""
    project = make_installed_project(sources, tmp_path_factory.mktemp("secrets"))
    for old, new in QUICK_WINDOW.items():
        project.edit_config(old, new)
    canaries = {name: Canary.of(name) for name in secret_variables()}
    printed: dict[str, str] = {}
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(project.path.parent / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    login = ("robot", canaries["SMTP_PASSWORD"].value)
    with webhook() as slack, webhook() as gateway, mailbox("starttls", context, login) as mail:
        hook = f"{slack.url}/{canaries['SLACK_WEBHOOK_URL'].core}"
        canaries["SLACK_WEBHOOK_URL"] = Canary(canaries["SLACK_WEBHOOK_URL"].core, hook)
        canaries["storage"] = Canary.of("storage")
        values = {
            **{name: canary.value for name, canary in canaries.items() if name != "storage"},
            "SMTP_HOST": "localhost",
            "SMTP_PORT": f"{mail.port}",
            "SMTP_USER": "robot",
            "SMTP_FROM": "pipeline@example.org",
            "SMTP_TO": "team@example.org",
            "SMTP_CA_FILE": str(project.path.parent / "ca.pem"),
            "MLFLOW_PORT": f"{free_port()}",
            "PROMETHEUS_PUSHGATEWAY_URL": gateway.url.partition("/services")[0],
        }
        write_environment(project, values)
        slug = project.answers["project_slug"]
        run = ("run", "training", "--partition", PARTITION)

        def keep(name: str, *command: str, variables: dict[str, str] | None = None) -> int:
            done = project.run(*command, check=False, variables=variables)
            printed[name] = done.stdout + done.stderr
            return done.returncode

        assert keep("plain run", slug, *run) == 0, printed["plain run"]
        with fault(project, "linear", LEAK):
            assert keep("failed plain run", slug, *run) != 0
            assert keep("failed run of the engine", "poe", "run", "--partition", PARTITION) != 0
        keep("doctor", slug, "doctor", "--send")
        options = {"key": canaries["storage"].value}
        for name, bad in {"half": json.dumps(options)[:-1], "list": json.dumps([options])}.items():
            variables = {"PIPELINE_DATA__STORAGE_OPTIONS": bad}
            assert keep(f"bad settings, {name}", slug, *run, variables=variables) != 0
    sent = {
        "chat": slack.bodies,
        "metrics": gateway.bodies,
        "mail": [*map(bytes, mail.messages), *map(text_of, mail.messages)],
    }
    return Traces(project, canaries, printed, sent)


def write_environment(project: Project, values: dict[str, str]) -> None:
    """Write .env, and the copies that editors and people make of it."""
    text = "".join(f"{name}='{value}'\n" for name, value in values.items())
    for name in (".env", ".env.local", ".env.bak", ".env.kubernetes"):
        (project.path / name).write_text(text)


def text_of(message: EmailMessage) -> bytes:
    """Return both parts of a mail as people read them, and its head."""
    parts = [part.get_content() for part in message.walk() if not part.is_multipart()]
    return "\n".join([*map(str, message.items()), *parts]).encode()


def test_the_runs_did_what_could_leak(traces: Traces) -> None:
    """Alerts were sent with the password, and the error that held two secrets was reported."""
    assert len(traces.canaries) > 15
    for channel in ("chat", "mail"):
        told = b"".join(traces.sent[channel])
        assert b"no answer from postgresql://me:***@db/flights" in told, told
    assert b"pipeline_last_run_succeeded 0.0" in b"".join(traces.sent["metrics"])
    for name in ("failed plain run", "failed run of the engine"):
        assert "no answer from postgresql" in traces.printed[name]


def test_no_secret_is_printed(traces: Traces) -> None:
    assert traces.found_in({name: text.encode() for name, text in traces.printed.items()}) == []


def test_no_secret_is_in_alerts_mails_or_metrics(traces: Traces) -> None:
    assert traces.found_in({name: b"\n".join(sent) for name, sent in traces.sent.items()}) == []


def test_no_secret_is_in_logs_mlflow_or_reports(traces: Traces) -> None:
    files = traces.files(sorted((traces.project.path / "var").rglob("*")))
    assert any(name.endswith("mlflow.db") for name in files)
    assert any(name.endswith("report.html") for name in files)
    assert "var/airflow/airflow.db" in files
    assert traces.found_in(files) == []


def test_no_secret_reaches_git(traces: Traces) -> None:
    root = traces.project.path
    names = git(root, "ls-files", "-z", "-co", "--exclude-standard").split("\0")
    files = traces.files([root / name for name in names if name])
    assert ".env.example" in files
    assert "config/pipeline.toml" in files
    assert traces.found_in(files) == []


def test_no_secret_reaches_an_image(traces: Traces) -> None:
    """What .dockerignore lets through of the folder is all that a build can copy."""
    root = traces.project.path
    lines = (root / ".dockerignore").read_text().splitlines()
    # Docker's patterns begin at the folder, where git's may be anywhere in it.
    ignored = pathspec.PathSpec.from_lines("gitignore", [f"/{line}" for line in lines if line])
    paths = [path for path in root.rglob("*") if ".venv" not in path.parts]
    kept = [path for path in paths if not ignored.match_file(path.relative_to(root).as_posix())]
    files = traces.files(kept)
    assert "src/flight_delays/cli/app.py" in files
    assert not [name for name in files if name.startswith((".env", ".venv", "var"))]
    assert traces.found_in(files) == []
