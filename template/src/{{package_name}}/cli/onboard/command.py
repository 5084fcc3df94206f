"""The command `onboard`: from any table to a first draft of all the team's files, and a model."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Shown

from ...core.errors import BadInput
from ...core.paths import project_root

if TYPE_CHECKING:
    from .look import Table
    from .plan import Plan

out = Console()

PAGE = Path("var") / "onboard" / "profile.html"
SAMPLE = "data/sample"
# Of the template's sample; its files are of no use for another table.
DRIFT = "data/drift"
Names = list[str]


def onboard(
    source: Annotated[
        str,
        typer.Argument(
            help="A file, a folder, a pattern with {partition}, or an SQLAlchemy address."
        ),
    ],
    target: Annotated[str, typer.Option(help="The column to predict.")] = "",
    time: Annotated[str, typer.Option(help="The column with a row's time.")] = "",
    key: Annotated[Names | None, typer.Option(help="A column that identifies a row.")] = None,
    group: Annotated[
        Names | None, typer.Option(help="A column whose rows a split keeps together.")
    ] = None,
    ignore: Annotated[Names | None, typer.Option(help="A column to leave out.")] = None,
    cadence: Annotated[
        Literal["hour", "day", "week", "month", "none"] | None,
        typer.Option(help="What a partition spans; none: the table as it is."),
    ] = None,
    problem: Annotated[
        Literal["classification", "regression"] | None, typer.Option(help="What is predicted.")
    ] = None,
    lag: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Learn from the target this many partitions before."),
    ] = None,
    table: Annotated[str, typer.Option(help="A table of the database.")] = "",
    query: Annotated[str, typer.Option(help="A query to the database.")] = "",
    mask: Annotated[
        Names | None, typer.Option(help="A column whose values the sample must not show.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the files, and write nothing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Also replace edited files.")] = False,
    train: Annotated[bool, typer.Option(help="Train and evaluate a first model.")] = True,
) -> None:
    """Look at a table, write domain/, config/, tests/domain/ and the sample for it, and train.

    Roles that are not given are proposed, with the reason. --key, --group, --ignore, --lag and
    --mask may be given several times.

    Examples:
        onboard customers.csv --target churned

        onboard 'exports/{partition}.csv.gz' --target amount --key order_id

        onboard postgresql+psycopg://host/shop --table orders --target returned --time ordered_at
    """
    from .infer import infer
    from .look import look
    from .plan import Asked
    from .write import write

    with Console(stderr=True).status("looking at the table…"):
        measured = look(source, table, query, ignore or ())
        if not target:
            raise BadInput(f"--target COLUMN is missing; there are: {', '.join(measured.columns)}")
        asked = Asked(
            *(target, time, tuple(key or ()), tuple(group or ())),
            *(cadence, problem, tuple(lag or ())),
        )
        plan = infer(measured, asked)
        files = write(measured, plan, project_root(), _masked(mask or [], plan, measured))
    out.print(_proposal(measured, plan))
    if dry_run:
        for path, text in files.items():
            out.rule(path)
            out.print(text, markup=False, highlight=False, soft_wrap=True)
        return
    _put(measured, plan, files, mask or [], force=force)
    if train:
        _train(plan.windows.newest or None)
    _say_what_next(plan)


def _masked(names: Names, plan: Plan, table: Table) -> Names:
    for name in names:
        if name not in table.columns or name in (plan.target, plan.time):
            raise BadInput(f"--mask {name}: it must be a column other than the target and the time")
    return names


def _proposal(table: Table, plan: Plan) -> Shown:
    """Return what was proposed, and why."""
    shown = Shown(box=box.ROUNDED, title=f"{table.rows:,} rows, {len(table.columns)} columns")
    for title in ("", "proposed", "because"):
        shown.add_column(title, overflow="fold")
    roles = {
        "target": ("problem", f"{plan.target}: {plan.problem}"),
        "time": ("time", plan.time or "none"),
        "cadence": ("cadence", plan.cadence.unit),
        "key": ("key", ", ".join(plan.key) or "none"),
        "group": ("group", ", ".join(plan.group) or "none"),
        "lags": ("lags", ", ".join(plan.lags) or "none"),
    }
    for role, (reason, proposed) in roles.items():
        shown.add_row(role, escape(proposed), escape(plan.reasons.get(reason, "")))
    features = [*plan.numeric, *plan.categorical, *(part.name for part in plan.parts), *plan.lags]
    shown.add_row("features", escape(", ".join(features)), f"{len(features)}")
    if plan.windows.newest:
        windows, unit = plan.windows, plan.cadence.unit
        rows = f"about {windows.window * windows.typical_rows:,} of {table.rows:,} rows"
        held = f"{windows.holdout} of them held out; window in [training] says how many"
        shown.add_row("learns from", f"{windows.window} {unit}s", escape(f"{rows}; {held}"))
        shown.add_row("steady", f"{len(plan.steady)}", escape(plan.reasons.get("steady", "")))
    for name, why in {**plan.left_out, **plan.suspicious}.items():
        used = "left out" if name in plan.left_out else "look at it"
        shown.add_row(used, escape(name), escape(why))
    for note in table.notes:
        shown.add_row("read", "", escape(note))
    return shown


def _put(table: Table, plan: Plan, files: dict[str, str], masked: Names, *, force: bool) -> None:
    """Write all files and the sample; what was there is kept aside."""
    from dotenv import set_key, unset_key

    from ...core.settings import load_settings
    from .keep import edited, remember, set_aside
    from .profile_page import render
    from .write import put_sample, sample_frames

    root = project_root()
    page = root / PAGE
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render(table, plan), encoding="utf-8")
    out.print(f"The table as a page: {page}", highlight=False, soft_wrap=True)
    yours = edited(root, files, [SAMPLE, DRIFT])
    if yours and not force and not (sys.stdin.isatty() and _may_replace(yours)):
        raise BadInput(
            f"{', '.join(yours)} may hold work of yours and would be replaced: --force replaces "
            "them all and keeps what was there in var/onboard/, --dry-run shows the new ones"
        )
    # Read before the folder that it may be read from is emptied.
    frames = sample_frames(table, plan, masked)
    before = set_aside(root, [*files, SAMPLE, DRIFT])
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    put_sample(frames, root / SAMPLE, root / DRIFT)
    # Of another table that was onboarded before.
    if (root / ".env").is_file():
        unset_key(root / ".env", "PIPELINE_DATA__SOURCE")
        os.environ.pop("PIPELINE_DATA__SOURCE", None)
    if table.source.shown != table.source.address:
        # A password is a secret, which the settings must not show.
        set_key(root / ".env", "PIPELINE_DATA__SOURCE", table.source.address)
    remember(root, [*files, SAMPLE])
    # They were read before.
    load_settings.cache_clear()
    out.print(f"Written: {', '.join(files)}, {SAMPLE}/", highlight=False)
    out.print(f"What was there: {before.relative_to(root)}/", highlight=False)


def _may_replace(paths: Names) -> bool:
    return typer.confirm(f"Replace {', '.join(paths)}? A copy is kept in var/onboard/")


def _train(partition: str | None = None) -> None:
    """Train, evaluate and promote on the plain runner, for the newest partition that is whole."""
    from ...core import registry
    from ...pipeline import execute
    from ...reporting.progress import StageProgress
    from ...reporting.terminal import print_result

    # A model of other columns can neither be compared nor score.
    former = registry.version_of(registry.CHAMPION)
    registry.retire()
    if former:
        out.print(
            f"Version {former.version}, champion until now, loses the title: it is of what was "
            "onboarded before. With those files back, "
            f"`uv run {registry.model_name()} champion promote {former.version} --force` makes it "
            "champion again",
            highlight=False,
        )
    try:
        with StageProgress():
            run = execute("training", partition)
    finally:
        # Nor may a service go on with it; of the same table, it may be champion again.
        if former and registry.versions()[0] != int(former.version):
            registry.withdraw(int(former.version))
    print_result(out, run.key)


def _say_what_next(plan: Plan) -> None:
    out.print(
        "Read what was written, above all what is marked as seen or to be checked. Then:\n"
        "  uv run poe test                        your contract, features and candidates\n"
        "  uv run poe run --pipeline inference    score the newest partition\n"
        "  uv run poe up                          the engine and MLflow in the browser\n"
        f"{_where_new_rows_go(plan)}",
        highlight=False,
        markup=False,
    )


def _where_new_rows_go(plan: Plan) -> str:
    from ...core.settings import load_settings

    data = load_settings().data
    if data.kind == "sql":
        return "New rows are read from the database as they come."
    said = f"New rows go into {data.source}"
    if data.kind == "files":
        name = data.file.replace("{partition}", plan.cadence.shift(plan.windows.newest, 1))
        said += f", one file for each {plan.cadence.unit}: next {name}"
    elif data.source == SAMPLE:
        said += ", in its file or in another beside it"
    if data.source == SAMPLE:
        said += ", or set source in [data] of config/pipeline.toml to where they come in"
    return f"{said}."
