"""The services of compose.yaml on this machine: build, start, watch, back up.

Labels of each service say what it is called and how to log in: `pipeline.ui`, `pipeline.user` and
`pipeline.password`, the last of which names a variable of .env.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import re
import secrets
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated, Any, TypeAlias

import typer
from dotenv import dotenv_values, set_key
from rich.console import Console

from ..core import tracking
from ..core.errors import StackError
from ..core.paths import folder_digest, project_root
from ..core.settings import load_settings

out = Console()
app = typer.Typer(no_args_is_help=True, help="The services of compose.yaml on this machine.")

READY_WITHIN_SECONDS = 600
# Variables that a compose file asks for in these words get a random value.
GENERATED = re.compile(r"\$\{(\w+):\?set by uv run poe stack up\}")
# Copies a volume while programs write to it: MLflow's file as a whole, by SQLite itself. tar
# ends with 1 when another file grew, or went, meanwhile.
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

# Runs one of PostgreSQL's programs where the stack's database is.
IN_POSTGRES = ("compose", "exec", "--no-TTY", "--env=PGUSER=pipeline", "postgres")

Stream: TypeAlias = IO[bytes] | int | None
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.command()
def up() -> None:
    """Build the image, start everything, wait until it is healthy, and say where it is.

    The first call writes .env with random secrets; existing values are never changed.

    Example:
        stack up
    """
    # Without Docker nothing is written, without a service nothing is built.
    docker("compose", "version", stdout=subprocess.DEVNULL)
    create_secrets(project_root())
    configuration()
    build()
    start()


def start() -> None:
    """Start everything, wait until it is healthy, and say where it is.

    Raises:
        StackError: Something is not healthy; its last lines were printed.
    """
    wait = ["--wait", "--wait-timeout", f"{READY_WITHIN_SECONDS}"]
    try:
        docker("compose", "up", "--detach", "--remove-orphans", *wait)
    except StackError:
        services = unwell()
        docker("compose", "logs", "--tail", "20", *services)
        raise StackError(f"the stack did not become healthy: {', '.join(services)}") from None
    print_addresses()


@app.command()
def build() -> None:
    """Build the project's image.

    Example:
        stack build
    """
    tag, commit = f"--tag={image_name()}", f"--build-arg=COMMIT={commit_tag()}"
    docker("build", "--file=deploy/Dockerfile", tag, commit, ".")


@app.command()
def down(
    volumes: Annotated[
        bool, typer.Option("--volumes", help="Also delete all data: runs, models, databases.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Stop everything. Data stays in its volumes.

    Examples:
        stack down

        stack down --volumes --yes
    """
    if volumes and not yes:
        typer.confirm("This deletes all runs, models and databases. Go on?", abort=True)
    docker("compose", "down", "--remove-orphans", *(["--volumes"] if volumes else []))


@app.command()
def status() -> None:
    """Show every service, and where it is; ends with 1 unless all of them are well.

    For programs there is `docker compose ps --all --format json`.

    Example:
        stack status
    """
    services = unwell()
    docker("compose", "ps", "--all")
    print_addresses()
    if services:
        raise StackError(f"not well: {', '.join(services)}; `uv run poe stack up` starts them")


@app.command()
def backup(
    folder: Annotated[Path, typer.Argument(help="Where a new folder is made.")] = Path("backups"),
) -> None:
    """Copy all databases, models and artefacts into a new folder.

    The stack keeps running. Databases are copied first, so the files they name are there.

    Examples:
        stack backup

        stack backup /mnt/backups
    """
    names = databases()
    target = folder / f"{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}"
    # It holds passwords.
    target.mkdir(mode=0o700, parents=True)
    for database in names:
        with out.status(f"database {database}…"), (target / f"{database}.dump").open("wb") as file:
            docker(*IN_POSTGRES, "pg_dump", "--format=custom", database, stdout=file)
    for name, volume in volumes_to_keep().items():
        with out.status(f"volume {name}…"), (target / f"{name}.tar.gz").open("wb") as file:
            in_volume(volume, COPY, stdout=file)
    manifest = {"project": load_settings().project.slug, "commit": commit_tag()}
    (target / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    out.print(f"{target}: keep .env with it, which has the passwords that are in the databases")


@app.command()
def restore(
    folder: Annotated[Path, typer.Argument(help="A folder that `backup` wrote.", exists=True)],
    yes: Yes = False,
) -> None:
    """Replace all databases, models and artefacts by those of a backup, and start again.

    Example:
        stack restore backups/2026-02-01T040000Z
    """
    manifest = folder / "manifest.json"
    slug = load_settings().project.slug
    if not manifest.exists():
        raise StackError(f"{folder} is not a whole backup: it has no manifest.json")
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
    docker("compose", "stop")
    # Makes volumes that are not there.
    docker("compose", "up", "--no-start")
    for name, archive in sorted(archives.items()):
        with out.status(f"volume {name}…"), archive.open("rb") as file:
            in_volume(volumes[name], CLEAR_AND_FILL, stdin=file)
    dumps = sorted(folder.glob("*.dump"))
    if dumps:
        docker("compose", "up", "--detach", "--wait", "postgres")
    for dump in dumps:
        with out.status(f"database {dump.stem}…"), dump.open("rb") as file:
            docker(*IN_POSTGRES, "dropdb", "--force", "--if-exists", dump.stem)
            docker(*IN_POSTGRES, "createdb", dump.stem)
            load = ["pg_restore", "--exit-on-error", f"--dbname={dump.stem}"]
            docker(*IN_POSTGRES, *load, stdin=file)
    start()


def create_secrets(root: Path) -> None:
    """Give each secret that the compose files ask for a random value in .env.

    A new .env begins as .env.example and only its owner may read it. An existing one gets what
    .env.example has gained since. A value that is there is never changed.
    """
    file, example = root / ".env", root / ".env.example"
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(example.read_text(encoding="utf-8"), encoding="utf-8")
    file.chmod(0o600)
    known = dotenv_values(file)
    offered = dotenv_values(example).items()
    values = {name: value or "" for name, value in offered if name not in known}
    files = [root / "compose.yaml", *(root / "deploy" / "compose").glob("*.yaml")]
    wanted = {name for path in files for name in GENERATED.findall(path.read_text("utf-8"))}
    values |= {name: random_secret(name) for name in wanted if not known.get(name)}
    for name, value in sorted(values.items()):
        # Replaces the file in one step, with its rights.
        set_key(file, name, value, quote_mode="never")
    if values:
        out.print(f"written to .env: {', '.join(sorted(values))}", highlight=False)


def random_secret(name: str) -> str:
    """Return 256 random bits: letters and digits, or base64 for a Fernet key."""
    if name.endswith("FERNET_KEY"):
        return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    return secrets.token_hex(32)


def docker(
    *arguments: str, stdin: Stream = subprocess.DEVNULL, stdout: Stream = None
) -> subprocess.CompletedProcess[bytes]:
    """Run docker in the project's folder.

    Raises:
        StackError: It failed.
    """
    # An empty variable would win over what .env says since.
    variables = {name: value for name, value in os.environ.items() if value}
    variables["DEPLOY_CONFIG"] = deploy_digest()
    command = ["docker", *arguments]
    try:
        done = subprocess.run(
            command, cwd=project_root(), env=variables, stdin=stdin, stdout=stdout, check=False
        )
    except FileNotFoundError:
        raise StackError(
            "docker is not installed: the stack needs Docker 25 or newer with its compose plugin, "
            "see https://docs.docker.com/engine/install/"
        ) from None
    if done.returncode != 0:
        raise StackError(f"failed with {done.returncode}, see above: {' '.join(command[:6])} …")
    return done


@functools.cache
def deploy_digest() -> str:
    """Return the label of a container that reads some of deploy/, computed once.

    The container is replaced when a file there has changed.
    """
    return folder_digest(project_root() / "deploy")


@functools.cache
def configuration() -> dict[str, Any]:
    """Return the whole of compose.yaml with all that it includes, resolved; asked for once.

    Raises:
        StackError: It holds no service.
    """
    done = docker("compose", "config", "--format", "json", stdout=subprocess.PIPE)
    configuration: dict[str, Any] = json.loads(done.stdout)
    if not configuration.get("services"):
        raise StackError(
            "these answers need no service on this machine; the image: uv run poe stack build"
        )
    return configuration


def unwell() -> list[str]:
    """Return the services that are missing, do not run healthily, or ended badly."""
    services = configuration()["services"]
    done = docker("compose", "ps", "--all", "--format", "json", stdout=subprocess.PIPE)
    containers = [json.loads(line) for line in done.stdout.splitlines()]
    missing = services.keys() - {container["Service"] for container in containers}
    for container in containers:
        name = container["Service"]
        # What is to end has restart: "no".
        ended = services.get(name, {}).get("restart") == "no" and container["State"] == "exited"
        runs = container["State"] == "running" and container["Health"] in ("healthy", "")
        if not (runs or (ended and container["ExitCode"] == 0)):
            missing.add(name)
    return sorted(missing)


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


def databases() -> list[str]:
    """Return the names of all databases of the stack; none without PostgreSQL."""
    if "postgres" not in configuration()["services"]:
        return []
    query = (
        "SELECT datname FROM pg_database "
        "WHERE NOT datistemplate AND datname NOT IN ('postgres', 'pipeline')"
    )
    ask = ["psql", "--dbname=postgres", "-At", "--command", query]
    return docker(*IN_POSTGRES, *ask, stdout=subprocess.PIPE).stdout.decode().split()


def volumes_to_keep() -> dict[str, str]:
    """Return the volumes that a backup holds: their names here, and what Docker calls them."""
    volumes = configuration().get("volumes", {}).items()
    return {
        name: volume["name"]
        for name, volume in volumes
        # One that says no is a database, or not worth its size.
        if volume.get("labels", {}).get("pipeline.backup") != "no"
    }


def in_volume(
    volume: str, script: str, stdin: Stream = subprocess.DEVNULL, stdout: Stream = None
) -> None:
    """Run a shell script as root in a separate container that has a volume at /volume."""
    options = ["--rm", "--network=none", f"--volume={volume}:/volume", "--user=root"]
    shell = ["--interactive", "--entrypoint=sh", image_name(), "-euc", script]
    docker("run", *options, *shell, stdin=stdin, stdout=stdout)


def image_name() -> str:
    """Return the image's name and tag, $PIPELINE_IMAGE or the project's own."""
    # Also reads .env.
    slug = load_settings().project.slug
    return os.environ.get("PIPELINE_IMAGE") or f"{slug}:latest"


def commit_tag() -> str:
    """Return the commit of the checkout, with -dirty where files were changed since."""
    tags = tracking.git_tags()
    dirty = "-dirty" if tags.get("git.dirty") == "true" else ""
    return tags.get("mlflow.source.git.commit", "") + dirty
