"""The project's command line. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from ..core import optional
from ..core.checks import Check
from ..core.ending import raise_signals
from ..core.errors import PipelineError, StillArriving, Terminated
from ..core.explain import explain
from ..core.logs import LONGEST_TRACEBACK, console, get_logger, logs_json, setup_logging
from ..core.paths import make_state_folder, project_root
from ..core.plain import plain
from ..core.redact import presentable
from ..core.refs import Pipeline
from ..core.settings import Logging, load_settings
from . import champions, stack
from .options import AsJson

app = typer.Typer(
    no_args_is_help=True,
    help="Run, check and operate this project's pipelines.",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
alert_app = typer.Typer(no_args_is_help=True, help="Alerts to the team's channels.")
app.add_typer(alert_app, name="alert")
app.add_typer(champions.app, name="champion")
app.add_typer(stack.app, name="stack")
# A team that has onboarded its table may delete that folder.
if "onboard" in optional.folders("cli"):
    app.command()(optional.load("cli.onboard.command").onboard)
out = Console()
err = console()
log = get_logger(__name__)


@app.callback()
def configure(
    context: typer.Context,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also show log lines in a terminal.")
    ] = False,
    json_logs: Annotated[
        bool, typer.Option("--json-logs", help="Log one JSON object per line.")
    ] = False,
) -> None:
    """Configure logging before any command."""
    if json_logs:
        # Also for what is wrong with the settings.
        setup_logging("INFO", json_lines=True)
    # The doctor must be able to tell what is wrong with the settings, an update to repair it.
    may_be_broken = context.invoked_subcommand in ("doctor", "update")
    settings = Logging() if may_be_broken else load_settings().logging
    json_lines = json_logs or settings.json_lines
    # A terminal shows progress instead, unless somebody wants to read along.
    quiet = err.is_terminal and not (verbose or json_lines)
    context.obj = verbose
    setup_logging("WARNING" if quiet else settings.level, json_lines=json_lines)
    with contextlib.suppress(PipelineError):
        make_state_folder(project_root())


@app.command()
def run(
    context: typer.Context,
    pipeline: Pipeline,
    partition: Annotated[
        str | None,
        typer.Option(help="Its name, like 2026-01-28.", show_default="newest at the source"),
    ] = None,
) -> None:
    """Run a whole pipeline in this process, without an engine.

    Examples:
        run training

        run inference --partition 2026-02-01
    """
    with raise_signals():
        try:
            # This takes seconds, and a signal may come meanwhile.
            from ..pipeline import execute
            from ..reporting.progress import StageProgress
            from ..reporting.terminal import print_result
        except Terminated as error:
            raise _told(error, "start", {"pipeline": pipeline, "partition": partition}) from None
        try:
            with StageProgress() as progress:
                finished = execute(pipeline, partition)
        except Exception:
            if progress.run_key is None or context.obj or logs_json():
                raise
            print_result(out, progress.run_key)
            out.print("its traceback is in the report; --verbose shows it", highlight=False)
            raise typer.Exit(1) from None
    print_result(out, finished.key)


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
    # Libraries also print, and standard output is for the reference alone.
    with contextlib.redirect_stdout(sys.stderr), raise_signals():
        try:
            result = (
                run_stage(name, *values) if isinstance(values, list) else run_stage(name, **values)
            )
        except Terminated as error:
            first = values[0] if isinstance(values, list) and values else dict(values).get("run")
            raise _told(error, name, first if isinstance(first, dict) else {}) from None
    print(json.dumps(result))


def _told(error: Terminated, stage: str, run: Mapping[str, Any]) -> Terminated:
    """Alert the team to the signal that ended a stage; return it with the stage's name."""
    from .. import alerts

    known = {name: run.get(name) for name in ("pipeline", "partition")}
    return alerts.send_signal(error, stage, run_key=run.get("key"), **known)


@app.command()
def score(
    source: Annotated[Path, typer.Argument(help="Rows to predict: .parquet or .csv.", exists=True)],
    target: Annotated[Path, typer.Argument(help="Where the predictions go: .parquet or .csv.")],
) -> None:
    """Predict the rows of any file with the champion.

    The rows keep the data contract; the label may be missing. Rows that break it are left out and
    counted.

    Example:
        score data/sample/2026-02-01.parquet predictions.csv
    """
    from .score_file import score_file

    out.print(score_file(source, target))


@app.command()
def data(as_json: AsJson = False) -> None:
    """List the partitions at the source.

    Examples:
        data

        data --json
    """
    from rich.table import Table

    from ..sources import require_partitions

    settings = load_settings()
    partitions = require_partitions(settings)
    if as_json:
        print(json.dumps({"source": settings.data.address, "partitions": partitions}))
        return
    title = f"{settings.data.address}: {len(partitions)} partitions"
    table = Table("partition", title=title)
    for partition in partitions:
        table.add_row(partition)
    out.print(table)


@app.command()
def rollback(
    force: Annotated[
        bool, typer.Option("--force", help="Also a version that cannot predict.")
    ] = False,
) -> None:
    """Put the previous champion back, if it still predicts.

    Examples:
        rollback

        rollback --force
    """
    from ..core import registry

    previous = registry.versions()[1]
    for version in registry.registered() if previous and not force else ():
        if int(version.version) == previous:
            champions.require_prediction(version)
    now, before = registry.rollback()
    out.print(f"version {now} is champion again; version {before} is kept as previous")
    champions.tell_monitoring()


@app.command()
def prune(
    keep_days: Annotated[
        int | None, typer.Option(min=0, help="What is younger stays. [default: as in the settings]")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove runs, their artefacts and their MLflow runs that are old and that nothing needs.

    Predictions stay, and so does everything that is needed by a registered version, a run in
    progress, a younger run, or the last successful run of each pipeline.

    Examples:
        prune --dry-run

        prune --keep-days 30
    """
    from .prune import prune as remove_old

    remove_old(keep_days, dry_run, as_json)


@app.command()
def doctor(
    send: Annotated[bool, typer.Option(help="Send a real test message to each channel.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check everything the pipelines need; each failed line says how to fix it.

    Examples:
        doctor

        doctor --send
    """
    from .doctor import run_checks

    with err.status("checking…"):
        checks = run_checks(send)
    _conclude(checks, as_json)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def update(context: typer.Context) -> None:
    """Update to the template's newest release; other options go to `copier update`.

    Example:
        update --data monitoring=none
    """
    from .update import update as update_project

    update_project(context.args)


@alert_app.command("test")
def alert_test(as_json: AsJson = False) -> None:
    """Send a real test message to every configured channel.

    Example:
        alert test
    """
    from .doctor import TEST_MESSAGES

    _conclude(TEST_MESSAGES.checks(), as_json)


@alert_app.command("flush")
def alert_flush(
    refused: Annotated[
        bool, typer.Option("--refused", help="Also what a server refused for good.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Deliver the alerts that did not arrive, marked as late.

    Examples:
        alert flush

        alert flush --refused
    """
    from .doctor import flush_alerts

    _conclude(flush_alerts(refused), as_json)


def _conclude(checks: Sequence[Check], as_json: bool) -> NoReturn:
    """Show checks, and end with 1 when one failed."""
    from .doctor import render

    ok = all(check.ok for check in checks)
    if as_json:
        print(json.dumps({"ok": ok, "checks": [asdict(check) for check in checks]}))
    else:
        out.print(render(checks))
    raise typer.Exit(0 if ok else 1)


def main() -> Any:
    """Run the command line; an expected error is one sentence, not a traceback."""
    try:
        app()
    except Terminated as error:
        _say(error)
        sys.stdout.flush()
        # Python would wait for the candidates that are still training.
        os._exit(error.exit_code)
    except Exception as error:
        _say(explain(error) or error)
        sys.exit(1)


def _say(error: BaseException) -> None:
    """Show what ended the command: one sentence where it was expected, else the traceback."""
    expected = isinstance(error, PipelineError | StillArriving | Terminated)
    sentence = presentable(f"{error}")
    if logs_json():
        named = f"{type(error).__name__}: {sentence}"
        log.error("%s", named, exc_info=None if expected else error)
    elif expected:
        err.print(f"[red]error[/]: {type(error).__name__}: ", end="")
        err.print(sentence, markup=False, highlight=False)
    else:
        trace = plain("".join(traceback.format_exception(error)), limit=LONGEST_TRACEBACK)
        print(trace, end="", file=sys.stderr)
