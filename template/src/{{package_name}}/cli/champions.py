"""The champion: what it is, how it came to be, and how to choose another one by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ..core import optional
from ..core.answers import MONITORING
from .options import AsJson

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

app = typer.Typer(no_args_is_help=True, help="The champion: look at it, or choose another one.")
out = Console()

NO_CHAMPION = "there is no champion: `uv run poe run` trains one"


@app.command()
def show(as_json: AsJson = False) -> None:
    """Show the champion, and whether it can predict what there is today.

    Examples:
        champion show

        champion show --json
    """
    from rich.table import Table
    from rich.text import Text

    from ..core import registry, tracking

    champion = registry.version_of(registry.CHAMPION)
    if champion is None:
        if as_json:
            print(json.dumps({"champion": None}))
        else:
            out.print(NO_CHAMPION, highlight=False)
        return
    rows = {
        "version": f"{champion.version}",
        "candidate": champion.tags.get("candidate", "–"),
        "trained until": champion.tags.get("trained_until", "–"),
        "registered": _time(champion.creation_timestamp),
    }
    if succession := registry.succession_of(champion):
        rows["champion since"] = f"{succession.at:%Y-%m-%d %H:%M} UTC: {succession}"
    rows |= _metrics(champion)
    if champion.run_id:
        rows["run"] = tracking.run_url(champion.run_id)
    rows["predicts"] = _predicts(champion)
    if as_json:
        print(json.dumps({"champion": _keyed(rows)}))
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for label, text in rows.items():
        table.add_row(label, Text(text))
    out.print(table)


@app.command()
def history(as_json: AsJson = False) -> None:
    """List all versions of the model, the newest first, and why each became champion.

    Examples:
        champion history

        champion history --json
    """
    from rich.table import Table
    from rich.text import Text

    from ..core import registry

    versions = registry.registered()
    if not (versions or as_json):
        out.print("no version is registered yet: `uv run poe run` trains one", highlight=False)
        return
    titles = dict(zip(registry.versions(), (registry.CHAMPION, registry.PREVIOUS), strict=True))
    columns = ("version", "alias", "candidate", "trained until", "registered", "champion")
    rows = []
    for version in versions:
        succession = registry.succession_of(version)
        told = [f"{succession.at:%Y-%m-%d %H:%M} {succession}"] if succession else []
        if at := version.tags.get(registry.WITHDRAWN_TAG):
            told.append(f"taken back {at}")
        cells = (
            f"{version.version}",
            titles.get(int(version.version), ""),
            version.tags.get("candidate", "–"),
            version.tags.get("trained_until", "–"),
            _time(version.creation_timestamp),
            "; ".join(told) or "never",
        )
        rows.append(cells)
    if as_json:
        listed = [_keyed(dict(zip(columns, cells, strict=True))) for cells in rows]
        print(json.dumps({"versions": listed}))
        return
    table = Table(*columns, box=None)
    for cells in rows:
        table.add_row(*map(Text, cells))
    out.print(table)


@app.command()
def retire(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Take the champion's title away: nothing is scored until another model passes the gates.

    The version stays, and no run makes it champion again.

    Examples:
        champion retire

        champion retire --yes
    """
    from ..core import registry

    champion = registry.version_of(registry.CHAMPION)
    if champion is None:
        out.print(NO_CHAMPION, highlight=False)
        return
    number = int(champion.version)
    if not yes:
        typer.confirm(f"Take the title from version {number}? Scoring stops", abort=True)
    registry.withdraw(number)
    registry.retire()
    again = f"uv run {registry.model_name()} champion promote {number} --force"
    out.print(f"version {number} is champion no more; `{again}` makes it again", highlight=False)
    tell_monitoring()


@app.command()
def promote(
    version: Annotated[int, typer.Argument(help="Its number, see `champion history`.")],
    force: Annotated[
        bool, typer.Option("--force", help="Also one that was taken back, or cannot predict.")
    ] = False,
) -> None:
    """Make a version the champion, whatever the gates say; `rollback` undoes it.

    No run makes a newer version that it replaces champion again.

    Examples:
        champion promote 3

        champion promote 4 --force
    """
    from ..core import registry
    from ..core.errors import BadInput

    found = next((one for one in registry.registered() if int(one.version) == version), None)
    if found and not force:
        if at := found.tags.get(registry.WITHDRAWN_TAG):
            raise BadInput(f"version {version} was taken back on {at}: --force promotes it anyway")
        require_prediction(found)
    before = registry.promote(version)
    after = f"; version {before} is kept as previous" if before else ""
    if before and before > version:
        after += ", and no run makes it champion again"
    out.print(f"version {version} is champion{after}", soft_wrap=True)
    tell_monitoring()


def require_prediction(version: ModelVersion) -> None:
    """Let a version predict before it becomes champion.

    Raises:
        BadInput: It cannot.
    """
    from ..core.errors import BadInput, ChampionUnusable
    from ..stages.score import prove

    try:
        prove(version)
    except ChampionUnusable as error:
        raise BadInput(
            f"version {version.version} cannot predict: {error.misfit}. Nothing was changed; "
            "`champion history` names other versions, --force takes this one anyway"
        ) from error


def tell_monitoring() -> None:
    """Push which version is champion, where the project is monitored."""
    if MONITORING == "prometheus":
        optional.load("reporting.prometheus").push_champion()


def _metrics(version: ModelVersion) -> dict[str, str]:
    """Return what was measured of a version on held-out rows; nothing where its run is gone."""
    from mlflow.exceptions import MlflowException

    from ..core import tracking

    try:
        found = tracking.client().get_run(version.run_id).data.metrics if version.run_id else {}
    except MlflowException:
        return {}
    return {name: f"{value:.4f}" for name, value in found.items() if name.startswith("holdout_")}


def _predicts(version: ModelVersion) -> str:
    from ..core.errors import ChampionUnusable, DomainError
    from ..stages.score import prove

    try:
        return "yes" if prove(version) else "it loads; no row that it learned from is left to try"
    except (ChampionUnusable, DomainError) as error:
        return f"no: {error}"


def _keyed(rows: Mapping[str, str]) -> dict[str, str]:
    """Return what a table shows with names that programs can use as its keys."""
    return {label.replace(" ", "_"): text for label, text in rows.items()}


def _time(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M} UTC"
