"""The project's command line. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from ..core import optional
from ..core.answers import MONITORING
from ..core.checks import Check
from ..core.errors import PipelineError
from ..core.logs import console, setup_logging
from ..core.refs import Pipeline
from ..core.settings import Logging, load_settings
from . import stack

app = typer.Typer(
    no_args_is_help=True,
    help="Run, check and operate this project's pipelines.",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
alert_app = typer.Typer(no_args_is_help=True, help="Alerts to the team's channels.")
app.add_typer(alert_app, name="alert")
app.add_typer(stack.app, name="stack")
out = Console()
err = console()


@app.callback()
def configure(
    context: typer.Context,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show log lines in a terminal, too.")
    ] = False,
    json_logs: Annotated[
        bool, typer.Option("--json-logs", help="Log one JSON object a line.")
    ] = False,
) -> None:
    """Configure logging before any command."""
    # The doctor must be able to tell what is wrong with the settings, an update to repair it.
    may_be_broken = context.invoked_subcommand in ("doctor", "update")
    settings = Logging() if may_be_broken else load_settings().logging
    json_lines = json_logs or settings.json_lines
    # A terminal shows progress instead, unless somebody wants to read along.
    quiet = err.is_terminal and not (verbose or json_lines)
    setup_logging("WARNING" if quiet else settings.level, json_lines=json_lines)


@app.command()
def run(
    pipeline: Pipeline,
    partition: Annotated[
        str | None,
        typer.Option(help="The day, like 2013-01-28.", show_default="newest at the source"),
    ] = None,
) -> None:
    """Run a whole pipeline in this process, without an engine.

    Examples:
        run training

        run inference --partition 2013-02-01
    """
    from ..pipeline import execute
    from ..reporting.terminal import StageProgress, result_table

    with StageProgress():
        finished = execute(pipeline, partition)
    out.print(result_table(finished.key))


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help="The stage, like ingest.")],
    arguments: Annotated[
        str, typer.Argument(help="Its arguments as a JSON list or object; - reads standard input.")
    ],
) -> None:
    """Run one stage: references in as JSON, the new reference out as JSON (for container steps).

    Examples:
        stage start '{"pipeline": "training"}'

        stage ingest '[{"pipeline": "training", …}]'
    """
    from ..stages import run_stage

    text = sys.stdin.read() if arguments == "-" else arguments
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise typer.BadParameter(f"not JSON: {error}") from None
    if not isinstance(values, list | dict):
        raise typer.BadParameter("a JSON list or object is expected")
    # Libraries print, too, and the standard output is for the reference alone.
    with contextlib.redirect_stdout(sys.stderr):
        result = run_stage(name, *values) if isinstance(values, list) else run_stage(name, **values)
    print(json.dumps(result))


@app.command()
def score(
    source: Annotated[Path, typer.Argument(help="Rows to predict: .parquet or .csv.", exists=True)],
    target: Annotated[Path, typer.Argument(help="Where the predictions go: .parquet or .csv.")],
) -> None:
    """Predict the rows of any file with the champion.

    The rows keep the data contract; the label may be missing. Rows that break it are left out and
    counted.

    Example:
        score data/sample/2013-02-01.parquet predictions.csv
    """
    from .score_file import score_file

    out.print(score_file(source, target))


@app.command()
def data() -> None:
    """List the partitions at the source."""
    from rich.table import Table

    from ..sources.files import partition_path, require_partitions

    settings = load_settings()
    partitions = require_partitions(settings)
    title = f"{settings.data.source}: {len(partitions)} partitions"
    table = Table("partition", "size", title=title)
    for partition in partitions:
        size = partition_path(settings, partition).stat().st_size
        table.add_row(f"{partition}", f"{size / 1024:,.0f} kB")
    out.print(table)


@app.command()
def rollback() -> None:
    """Put the previous champion back."""
    from ..core.registry import rollback as put_back

    now, before = put_back()
    out.print(f"version {now} is champion again; version {before} is kept as previous")
    if MONITORING == "prometheus":
        optional.load("reporting.prometheus").push_champion()


@app.command()
def doctor(
    send: Annotated[bool, typer.Option(help="Send a real test message to each channel.")] = False,
) -> None:
    """Check everything the pipelines need; each failed line says how to fix it."""
    from .doctor import run_checks

    with err.status("checking…"):
        checks = run_checks(send)
    _conclude(checks)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def update(context: typer.Context) -> None:
    """Update to the template's newest release; other options go to `copier update`.

    Example:
        update --data monitoring=none
    """
    from .update import update as update_project

    update_project(context.args)


@alert_app.command("test")
def alert_test() -> None:
    """Send a real test message to every configured channel."""
    from .doctor import TEST_MESSAGES

    _conclude(TEST_MESSAGES.checks())


def _conclude(checks: Sequence[Check]) -> NoReturn:
    """Show checks, and end with 1 when one failed."""
    from .doctor import render

    out.print(render(checks))
    raise typer.Exit(0 if all(check.ok for check in checks) else 1)


def main() -> Any:
    """Run the command line; an expected error is one sentence, not a traceback."""
    try:
        app()
    except PipelineError as error:
        err.print(f"[red]error[/]: {type(error).__name__}: ", end="")
        err.print(str(error), markup=False, highlight=False)
        sys.exit(1)
