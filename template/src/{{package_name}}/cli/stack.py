"""The services of compose.yaml on this machine: build, start, watch, back up.

What a service is called and how to log in stands at the service itself, in labels: `pipeline.ui`,
`pipeline.user` and `pipeline.password`, the last of which names a variable of .env.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from dotenv import dotenv_values
from rich.console import Console
from rich.table import Table

from ..core import tracking
from ..core.errors import StackError
from ..core.paths import folder_digest, project_root
from ..core.settings import load_settings

out = Console()
app = typer.Typer(no_args_is_help=True)

READY_WITHIN_SECONDS = 600
# Variables that a compose file asks for in these words get a random value.
GENERATED = re.compile(r"\$\{(\w+):\?set by uv run poe stack up\}")
# A volume with this label is not copied: it is a database, or not worth its size.
NOT_COPIED = "pipeline.backup"
# Copies a volume while programs write to it: MLflow's file as a whole, by SQLite itself. 1 is what
# tar ends with when another file grew, or went, meanwhile.
COPY = """
set --
if [ -f /volume/mlflow/mlflow.db ]; then
    python -c "
import sqlite3
sqlite3.connect('/volume/mlflow/mlflow.db').backup(sqlite3.connect('/volume/mlflow/copy.db'))"
    set -- --exclude=./mlflow/mlflow.db --transform=s,/copy.db,/mlflow.db,
fi
tar -C /volume --exclude='./*/logs' --exclude='.rclone_*' "$@" -czf - . || [ $? -eq 1 ]
rm -f /volume/mlflow/copy.db
"""
CLEAR_AND_FILL = "find /volume -mindepth 1 -delete && tar -C /volume -xzf -"
# One line a service, of what Docker knows of it.
Service = dict[str, Any]

INSTALL = (
    "the stack needs Docker 25 or newer with its compose plugin, see "
    "https://docs.docker.com/engine/install/"
)

Folder = Annotated[Path, typer.Argument(help="A folder that `backup` has written.", exists=True)]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.callback()
def require_docker() -> None:
    """The services of compose.yaml on this machine."""
    if shutil.which("docker") is None:
        raise StackError(f"docker is not installed: {INSTALL}")
    asked = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if asked.returncode != 0:
        raise StackError(f"`docker compose` does not work: {INSTALL}")


@app.command()
def up() -> None:
    """Build the image, start everything, wait until it is healthy, and say where it is.

    The first call writes .env with random secrets; values that are there are never changed.
    """
    create_secrets(project_root())
    require_services()
    build()
    start()


def start() -> None:
    """Start everything, wait until it is healthy, and say where it is.

    Raises:
        StackError: Something is not healthy; holds its last lines.
    """
    wait = ["--wait", "--wait-timeout", f"{READY_WITHIN_SECONDS}"]
    done = compose("up", "--detach", "--remove-orphans", *wait, check=False)
    if done.returncode != 0:
        raise StackError(f"the stack did not become healthy\n{last_log_lines()}")
    print_addresses()


@app.command()
def build() -> None:
    """Build the project's image."""
    root = project_root()
    if not (root / "uv.lock").exists():
        run(["uv", "lock"])
    image, commit = image_name(), commit_tag()
    arguments = ["--file", "deploy/Dockerfile", "--tag", image, "--build-arg", f"COMMIT={commit}"]
    if run(["docker", "build", *arguments, "."], check=False).returncode != 0:
        raise StackError(f"the image {image} was not built, see above")


@app.command()
def down(
    volumes: Annotated[
        bool, typer.Option("--volumes", help="Also delete all data: runs, models, databases.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Stop everything. Data stays in its volumes."""
    if volumes and not yes:
        typer.confirm("This deletes all runs, models and databases. Go on?", abort=True)
    compose("down", "--remove-orphans", *(["--volumes"] if volumes else []))


@app.command()
def logs(
    services: Annotated[list[str] | None, typer.Argument(help="All of them if not given.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    tail: Annotated[int, typer.Option(help="Lines of each service.")] = 100,
) -> None:
    """Show what the services print.

    Example:
        stack logs mlflow --follow
    """
    arguments = ["--tail", f"{tail}", *(["--follow"] if follow else []), *(services or [])]
    compose("logs", *arguments)


@app.command()
def status() -> None:
    """Show every service, and where it is; ends with 1 unless all of them are well."""
    require_services()
    table = Table("service", "state", "since", box=None, padding=(0, 2, 0, 0))
    services = states()
    wanted = configuration()["services"].keys()
    missing = sorted(wanted - {service["Service"] for service in services})
    for service in services:
        style = "green" if is_well(service) else "red"
        table.add_row(service["Name"], f"[{style}]{service['Status']}[/]", service["RunningFor"])
    for name in missing:
        table.add_row(name, "[red]not there[/]: uv run poe stack up", "")
    out.print(table)
    print_addresses()
    well = not missing and all(map(is_well, services))
    raise typer.Exit(0 if well else 1)


@app.command()
def backup(
    folder: Annotated[Path, typer.Argument(help="Where a new folder is made.")] = Path("backups"),
) -> None:
    """Copy all databases, models and artefacts into a new folder.

    The stack goes on meanwhile. Databases come first: what they name is in the files then.
    """
    target = folder / f"{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}"
    # It holds passwords.
    target.mkdir(mode=0o700, parents=True)
    for database in databases():
        with out.status(f"database {database}…"), (target / f"{database}.dump").open("wb") as file:
            dump = ["pg_dump", "--username=pipeline", "--format=custom", database]
            compose("exec", "--no-TTY", "postgres", *dump, stdout=file)
    for name, volume in volumes_to_keep().items():
        with out.status(f"volume {name}…"), (target / f"{name}.tar.gz").open("wb") as file:
            in_volume(volume, COPY, stdout=file)
    written = sorted(target.iterdir())
    manifest = {"project": load_settings().project.slug, "commit": commit_tag()}
    (target / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    for path in written:
        out.print(f"{path}: {path.stat().st_size / 1e6:,.1f} MB", highlight=False)
    out.print("keep .env with it: passwords in the databases are those of .env")


@app.command()
def restore(folder: Folder, yes: Yes = False) -> None:
    """Replace all databases, models and artefacts by those of a backup, and start again."""
    manifest = folder / "manifest.json"
    slug = load_settings().project.slug
    if not manifest.exists():
        raise StackError(f"{folder} is no whole backup: it has no manifest.json")
    if json.loads(manifest.read_text())["project"] != slug:
        raise StackError(f"{folder} is a backup of another project, not of {slug}")
    if not (project_root() / ".env").exists():
        raise StackError("put the backup's .env back first: its databases hold those passwords")
    volumes = volumes_to_keep()
    archives = {file.name.removesuffix(".tar.gz"): file for file in folder.glob("*.tar.gz")}
    for name in archives.keys() - volumes.keys():
        raise StackError(f"{archives[name]}: the stack has no volume '{name}'")
    if not yes:
        typer.confirm("This replaces all data of the stack. Go on?", abort=True)
    create_secrets(project_root())
    build()
    compose("stop")
    # Makes volumes that are not there.
    compose("up", "--no-start")
    for name, archive in sorted(archives.items()):
        with out.status(f"volume {name}…"), archive.open("rb") as file:
            in_volume(volumes[name], CLEAR_AND_FILL, stdin=file)
    dumps = sorted(folder.glob("*.dump"))
    if dumps:
        compose("up", "--detach", "--wait", "postgres")
    for dump in dumps:
        with out.status(f"database {dump.stem}…"), dump.open("rb") as file:
            drop = ["dropdb", "--username=pipeline", "--force", "--if-exists", dump.stem]
            compose("exec", "--no-TTY", "postgres", *drop)
            create = ["createdb", "--username=pipeline", dump.stem]
            compose("exec", "--no-TTY", "postgres", *create)
            load = ["pg_restore", "--username=pipeline", "--exit-on-error", "--dbname", dump.stem]
            compose("exec", "--no-TTY", "postgres", *load, stdin=file)
    start()


def create_secrets(root: Path) -> list[str]:
    """Give each secret that the compose files ask for a random value in .env.

    A new .env begins as .env.example and only its owner may read it. One that is there gets what
    .env.example has since got. A value that is there is never changed.

    Returns:
        The names that were added.
    """
    file = root / ".env"
    if not file.exists():
        write_private(file, (root / ".env.example").read_text(encoding="utf-8"))
    file.chmod(0o600)
    known = dotenv_values(file)
    values = {
        name: value or ""
        for name, value in dotenv_values(root / ".env.example").items()
        if name not in known
    }
    files = [root / "compose.yaml", *sorted((root / "deploy" / "compose").glob("*.yaml"))]
    wanted = {name for path in files for name in GENERATED.findall(path.read_text("utf-8"))}
    values |= {name: random_secret(name) for name in wanted if not known.get(name)}
    if values:
        text = file.read_text(encoding="utf-8")
        # A line that waits for its value, or else a new one.
        for name in sorted(values.keys() & known.keys()):
            text = re.sub(rf"^{name}=[ \t]*$", f"{name}={values[name]}", text, flags=re.MULTILINE)
        lines = [f"{name}={values[name]}\n" for name in sorted(values.keys() - known.keys())]
        heading = "\n# --- Added by `poe stack up`\n" if lines else ""
        write_private(file, "".join([text, heading, *lines]))
        out.print(f"written to .env: {', '.join(sorted(values))}", highlight=False)
    return sorted(values)


def write_private(file: Path, text: str) -> None:
    """Replace a file by one that only its owner may read, in one step."""
    temporary = file.with_name(f".env.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    temporary.replace(file)


def random_secret(name: str) -> str:
    """Return 256 random bits: letters and digits, or base64 for a Fernet key."""
    if name.endswith("FERNET_KEY"):
        return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    return secrets.token_hex(32)


def run(
    command: Sequence[str],
    *,
    check: bool = True,
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | int | None = None,
    stderr: int | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a program in the project's folder.

    Raises:
        StackError: It failed and `check` is set.
    """
    done = subprocess.run(
        command,
        cwd=project_root(),
        env=environment(),
        stdin=stdin or subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        check=False,
    )
    if check and done.returncode != 0:
        raise StackError(f"failed with {done.returncode}, see above: {' '.join(command[:6])} …")
    return done


@functools.cache
def environment() -> dict[str, str]:
    """Return the variables of every program.

    A container that reads some of deploy/ when it starts has DEPLOY_CONFIG as a label, so that it
    is replaced when a file there has changed.
    """
    # An empty variable would win over what .env says since.
    kept = {name: value for name, value in os.environ.items() if value}
    return {**kept, "DEPLOY_CONFIG": folder_digest(project_root() / "deploy")}


def compose(
    *arguments: str,
    check: bool = True,
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | int | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run docker compose on this project; raises as `run` does."""
    return run(["docker", "compose", *arguments], check=check, stdin=stdin, stdout=stdout)


@functools.cache
def configuration() -> dict[str, Any]:
    """Return the whole of compose.yaml with all that it includes, resolved; asked for once."""
    done = compose("config", "--format", "json", stdout=subprocess.PIPE)
    configuration: dict[str, Any] = json.loads(done.stdout)
    return configuration


def require_services() -> None:
    """Check that there is something to start.

    Raises:
        StackError: There is not.
    """
    if not configuration().get("services"):
        raise StackError(
            "these answers need no service on this machine; the image: uv run poe stack build"
        )


def states() -> list[Service]:
    """Return Docker's line of every container, also of those that have ended."""
    done = compose("ps", "--all", "--format", "json", stdout=subprocess.PIPE)
    lines = done.stdout.decode().splitlines()
    return sorted((json.loads(line) for line in lines), key=lambda service: service["Name"])


def is_well(service: Service) -> bool:
    """Return whether a service runs healthily, or is one of those that end, and ended well."""
    configured = configuration()["services"].get(service["Service"], {})
    if configured.get("restart") == "no" and service["State"] == "exited":
        return bool(service["ExitCode"] == 0)
    return service["State"] == "running" and service["Health"] in ("healthy", "")


def last_log_lines() -> str:
    """Return the last lines of every service that is not well."""
    texts = []
    for service in states():
        if is_well(service):
            continue
        show = ["docker", "logs", "--tail", "20", service["ID"]]
        printed = run(show, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        texts.append(f"{service['Name']}: {service['Status']}\n{printed.stdout.decode()}")
    return "\n".join(texts)


def print_addresses() -> None:
    """Print where each service with a page is, and how to log in."""
    known = dotenv_values(project_root() / ".env")
    for service in configuration()["services"].values():
        labels = service.get("labels", {})
        if "pipeline.ui" in labels:
            port = service["ports"][0]["published"]
            secret = known.get(labels.get("pipeline.password", ""))
            login = " / ".join(part for part in (labels.get("pipeline.user"), secret) if part)
            line = f"{labels['pipeline.ui']:<13} http://127.0.0.1:{port}  {login}"
            # In one piece, to be copied.
            out.print(line.rstrip(), soft_wrap=True, highlight=False)


def databases() -> Iterable[str]:
    """Return the names of all databases of the stack; none without PostgreSQL."""
    if "postgres" not in configuration()["services"]:
        return []
    query = (
        "SELECT datname FROM pg_database "
        "WHERE NOT datistemplate AND datname NOT IN ('postgres', 'pipeline')"
    )
    ask = ["psql", "--username=pipeline", "--dbname=postgres", "-At", "--command", query]
    done = compose("exec", "--no-TTY", "postgres", *ask, stdout=subprocess.PIPE)
    return done.stdout.decode().split()


def volumes_to_keep() -> dict[str, str]:
    """Return the volumes that a backup holds: their names here, and what Docker calls them."""
    volumes = configuration().get("volumes", {}).items()
    return {
        name: volume["name"]
        for name, volume in volumes
        if volume.get("labels", {}).get(NOT_COPIED) != "no"
    }


def in_volume(
    volume: str, script: str, stdin: IO[bytes] | None = None, stdout: IO[bytes] | None = None
) -> None:
    """Run a shell script as root in a container of its own that has a volume at /volume."""
    mount = [f"--volume={volume}:/volume", "--user=root", "--interactive"]
    shell = ["--entrypoint=sh", image_name(), "-euc", script]
    run(["docker", "run", "--rm", "--network=none", *mount, *shell], stdin=stdin, stdout=stdout)


def image_name() -> str:
    """Return the image's name and tag, $PIPELINE_IMAGE or the project's own."""
    known = dotenv_values(project_root() / ".env")
    named = os.environ.get("PIPELINE_IMAGE") or known.get("PIPELINE_IMAGE")
    return named or f"{load_settings().project.slug}:latest"


def commit_tag() -> str:
    """Return the commit of the checkout, with -dirty where files were changed since."""
    tags = tracking.git_tags()
    dirty = "-dirty" if tags.get("git.dirty") == "true" else ""
    return f"{tags['mlflow.source.git.commit']}{dirty}" if tags else ""
