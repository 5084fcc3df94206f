"""The measurements themselves, one function each; `ALL` names them."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import big_data
from .bench import Bench
from .image import image
from .measure import Command, CommandError, Usage
from .results import MEGABYTE, Row, StageImports
from .serving import serving
from .workspace import SCRIPTS, Workspace

ROWS = (1_000_000, 3_000_000, 10_000_000)
WINDOW_DAYS = 21
MAX_RENDER_SECONDS = 1.0
MAX_RUN_RATIO = 1.3
# CPU of a steady run, over the plain runner in the same project.
MAX_ENGINE_RATIO = {"prefect": 1.5, "dagster": 2.0, "airflow": 2.5, "kubeflow": 3.0}
MAX_DATA_PATH_RATIO = 1.5
MAX_DATA_PATH_BYTES = 2_000 * MEGABYTE
ONBOARD_ROWS = 1_000_000
MAX_ONBOARD_RATIO = 3.0
MAX_ONBOARD_BYTES = 2_000 * MEGABYTE
# What a median of a few calls may be off.
GROWTH_TOLERANCE = 1.2
# Same model, same metrics; beyond this the two sides did not do the same work.
METRIC_TOLERANCE = 1e-6
PEER = "kedro spaceflights-pandas"
PEER_TIMEOUT_SECONDS = 120

VERSIONS = (
    *("apache-airflow", "mlflow", "optuna", "pandera", "polars", "scikit-learn", "xgboost-cpu"),
)

# What the imports of each stage are searched for. Not listed: what is light.
HEAVY = (
    *("airflow", "jinja2", "matplotlib", "mlflow", "optuna", "pandas", "pandera", "polars"),
    *("pyarrow", "scipy", "sklearn", "sqlalchemy", "xgboost"),
)
# MLflow itself imports pandas, SciPy and the rest of these, whatever it is used for.
MLFLOW = {"mlflow", "pandas", "polars", "pyarrow", "scipy", "sqlalchemy"}
MODEL = MLFLOW | {"sklearn", "xgboost"}
USED = {
    "start": MLFLOW,
    "ingest": {"polars"},
    "validate": {"polars", "pandera", "pandas", "pyarrow"},  # pandera imports the last two
    "featurize": {"polars"},
    "train": MODEL | {"optuna"},
    "select": {"polars"},
    "evaluate": MODEL,
    "promote": MLFLOW,
    "report": MODEL | {"jinja2", "matplotlib"},
    "score": MODEL,
    "monitor": MODEL,
}


def render(bench: Bench) -> None:
    """Make a project from the template."""
    folder = bench.workspace.folder / "rendered"
    command = bench.workspace.render(folder)
    command.measure()
    usage = bench.measure(
        "render: copier copy --defaults",
        command,
        before=lambda: shutil.rmtree(folder, ignore_errors=True),
    )
    bench.promise(
        f"render within {MAX_RENDER_SECONDS:g} s",
        f"{usage.wall:.2f} s",
        usage.wall < MAX_RENDER_SECONDS,
    )


def install(bench: Bench) -> None:
    """Install the project: from the package index once, then from uv's cache."""
    workspace = bench.workspace
    environment = workspace.project / ".venv"
    cache = workspace.folder / "uv-cache"
    sync = workspace.command("uv", "sync", UV_CACHE_DIR=cache)
    bench.measure("install: uv sync, cold cache, no lock file", sync, repeats=1)
    bench.measure("install: uv sync, warm cache", sync, before=lambda: shutil.rmtree(environment))


def run(bench: Bench) -> None:
    """Run the training pipeline in plain Python, against the same work written by hand."""
    workspace = bench.workspace
    program = workspace.python.with_name("flight-delays")
    bench.measure(
        "run, plain Python, first: no store, no bytecode",
        workspace.command(program, "run", "training", PYTHONPYCACHEPREFIX=_bytecode(workspace)),
        before=lambda: _as_new(workspace),
    )
    ours = workspace.command(program, "run", "training")
    by_hand = by_hand_command(workspace)
    for warm_up in (ours, by_hand):
        warm_up.measure()
    steady, bound = bench.compare(
        {"run, plain Python, steady": ours, "bound: the same work by hand, steady": by_hand}
    ).values()
    difference = metric_difference(workspace)
    ratio = steady.cpu / bound.cpu
    bench.promise(
        f"steady run within {MAX_RUN_RATIO:g} times the CPU of the same work by hand",
        f"{ratio:.2f} times",
        ratio <= MAX_RUN_RATIO,
    )
    bench.promise(
        "both sides reach the same metrics",
        f"differ by {difference:.0e}",
        difference <= METRIC_TOLERANCE,
    )


def by_hand_command(workspace: Workspace) -> Command:
    """Return the command of the bound; it runs in the project's environment."""
    source = workspace.project / "data" / "sample"
    return workspace.command(
        workspace.python, SCRIPTS / "bound.py", source, workspace.folder / "bound"
    )


def metric_difference(workspace: Workspace) -> float:
    """Return the largest difference between the holdout metrics of our last run and the bound's.

    Raises:
        ValueError: The two have other metrics.
    """
    records = (workspace.project / "var" / "artifacts" / "runs").glob("*/evaluate.json")
    newest = max(records, key=lambda path: path.stat().st_mtime)
    ours = json.loads(newest.read_text())["result"]["metrics"]
    bound = json.loads((workspace.folder / "bound" / "metrics.json").read_text())
    if ours.keys() != bound.keys():
        raise ValueError(f"other metrics: {sorted(ours)} and {sorted(bound)}")
    return max(abs(float(ours[name]) - float(bound[name])) for name in ours)


def airflow(bench: Bench) -> None:
    """Run the whole training DAG on Airflow, as `poe run` does."""
    workspace = bench.workspace
    call = "from flight_delays.orchestration.airflow.local import run; run()"
    bench.measure(
        "run, Airflow, first: no stores, no bytecode",
        workspace.command(workspace.python, "-c", call, PYTHONPYCACHEPREFIX=_bytecode(workspace)),
        before=lambda: _as_new(workspace),
    )


def engines(bench: Bench) -> None:
    """Run the training pipeline on each engine, against the plain runner in the same project."""
    for engine, most in MAX_ENGINE_RATIO.items():
        workspace = bench.workspace.variant(orchestrator=engine)
        program = workspace.python.with_name("flight-delays")
        plain = workspace.command(program, "run", "training")
        call = f"from flight_delays.orchestration.{engine}.local import run; run()"
        ours = workspace.command(workspace.python, "-c", call)
        for warm_up in (plain, ours):
            warm_up.measure()
        bound, usage = bench.compare(
            {f"run, plain Python, beside {engine}": plain, f"run, {engine}, steady": ours}
        ).values()
        ratio = usage.cpu / bound.cpu
        bench.promise(
            f"steady run on {engine} within {most:g} times the CPU of the plain runner",
            f"{ratio:.2f} times",
            ratio <= most,
        )


def peer(bench: Bench) -> None:
    """Run kedro's starter project; it comes from GitHub, which not every machine reaches."""
    workspace = bench.workspace
    folder = workspace.folder / "peer"
    folder.mkdir()
    kedro = [*("uv", "tool", "run", "kedro", "new"), "--starter=spaceflights-pandas", "--name=peer"]
    try:
        new = subprocess.run(
            kedro,
            cwd=folder,
            env=workspace.environment,
            capture_output=True,
            timeout=PEER_TIMEOUT_SECONDS,
            check=False,
        )
        if new.returncode != 0:
            raise CommandError("its starter cannot be fetched from GitHub")
        here = folder / "peer"
        for arguments in (["venv"], ["pip", "install", "--requirements=requirements.txt"]):
            Command(["uv", *arguments], here, workspace.environment).measure()
        program = here / ".venv" / "bin" / "kedro"
        bench.measure(
            f"peer: {PEER}, steady", Command([program, "run"], here, workspace.environment)
        )
    except (CommandError, subprocess.TimeoutExpired) as error:
        reason = "its starter did not arrive in time"
        if isinstance(error, CommandError):
            reason = str(error).splitlines()[0]
        bench.say(f"peer: not measured: {reason}")
        bench.results.rows.append(Row(f"peer: {PEER}", note=f"not measured: {reason}"))


def data_path(bench: Bench) -> None:
    """Take 1, 3 and 10 million rows from raw data to features, against hand-written polars."""
    usages = [_data_path_of(bench, rows) for rows in ROWS]
    largest, bound = usages[-1]
    ratio = largest.cpu / bound.cpu
    bench.promise(
        f"{ROWS[-1]:,} rows within {MAX_DATA_PATH_RATIO:g} times the CPU of polars by hand",
        f"{ratio:.2f} times",
        ratio <= MAX_DATA_PATH_RATIO,
    )
    bench.promise(
        f"{ROWS[-1]:,} rows in under {MAX_DATA_PATH_BYTES / MEGABYTE:,.0f} MB",
        f"{largest.peak / MEGABYTE:,.0f} MB",
        largest.peak < MAX_DATA_PATH_BYTES,
    )
    # Differences, since the start of the process costs the same whatever the number of rows.
    early, late = (
        (after.cpu - before.cpu) / (more - less) * 1e6
        for (less, (before, _)), (more, (after, _)) in itertools.pairwise(
            zip(ROWS, usages, strict=True)
        )
    )
    bench.promise(
        "the data path grows no faster than the rows",
        f"{early:.2f} s CPU for each million rows up to 3 million, {late:.2f} s beyond",
        late <= GROWTH_TOLERANCE * early,
    )


def _data_path_of(bench: Bench, rows: int) -> tuple[Usage, Usage]:
    workspace = bench.workspace
    folder = workspace.folder / "rows"
    source, ours, by_hand = folder / "source", folder / "ours", folder / "bound"
    sample = sorted((workspace.project / "data" / "sample").glob("*.parquet"))[:WINDOW_DAYS]
    big_data.tile(sample, source, rows)
    commands = {
        f"data path, {rows:,} rows": workspace.command(
            workspace.python,
            SCRIPTS / "data_path.py",
            sample[-1].stem,
            PIPELINE_DATA__SOURCE=source,
            PIPELINE_STORAGE__ROOT=ours,
        ),
        f"bound: polars by hand, {rows:,} rows": workspace.command(
            workspace.python, SCRIPTS / "data_path_bound.py", source, by_hand
        ),
    }

    def start_afresh() -> None:
        for path in (ours, by_hand):
            shutil.rmtree(path, ignore_errors=True)

    try:
        for warm_up in commands.values():
            start_afresh()
            warm_up.measure()
        mine, bound = bench.compare(commands, before=start_afresh).values()
    finally:
        shutil.rmtree(folder)
    return mine, bound


def onboard(bench: Bench) -> None:
    """Onboard a table that nobody has seen, against what polars needs to read and describe it."""
    workspace = bench.workspace.variant(project_name="Onboarded")
    program = workspace.python.with_name("onboarded")
    for kind, scan in (("Parquet", "scan_parquet"), ("CSV", "scan_csv")):
        table = workspace.folder / f"table.{kind.lower()}"
        big_data.wide(table, ONBOARD_ROWS)
        options = ("--target", "label", "--no-train", "--force")
        ours = workspace.command(program, "onboard", table, *options)
        code = f"import polars, sys; print(polars.{scan}(sys.argv[1]).describe())"
        bound = workspace.command(workspace.python, "-c", code, table)
        for warm_up in (ours, bound):
            warm_up.measure()
        mine, least = bench.compare(
            {
                f"onboard, {ONBOARD_ROWS:,} rows of 30 columns, {kind}": ours,
                f"bound: polars reads and describes them, {kind}": bound,
            }
        ).values()
        ratio = mine.wall / least.wall
        bench.promise(
            f"a {kind} table is onboarded in {MAX_ONBOARD_RATIO:g} times the time of polars",
            f"{ratio:.2f} times",
            ratio <= MAX_ONBOARD_RATIO,
        )
        bench.promise(
            f"a {kind} table is onboarded in under {MAX_ONBOARD_BYTES / MEGABYTE:,.0f} MB",
            f"{mine.peak / MEGABYTE:,.0f} MB",
            mine.peak < MAX_ONBOARD_BYTES,
        )


def imports(bench: Bench) -> None:
    """Run each stage in a process of its own and look at what it imported."""
    for stage in _stages(bench.workspace):
        bench.results.imports.append(stage)
        bench.say(f"imports, {stage.stage}: {stage.seconds:.2f} s, {stage.modules:,} modules")
    surplus = [
        f"{stage.stage}: {', '.join(stage.surplus)}"
        for stage in bench.results.imports
        if stage.surplus
    ]
    bench.promise("a stage imports only what it uses", "; ".join(surplus) or "yes", not surplus)


def _stages(workspace: Workspace) -> list[StageImports]:
    """Run both pipelines stage by stage, each stage in a process as an engine would start it."""
    found: dict[str, StageImports] = {}

    def call(name: str, *arguments: Any) -> Any:
        imported, reference = _imports_of(workspace, name, arguments)
        # A stage of both pipelines is noted as training has it: its report draws plots.
        found.setdefault(name, imported)
        return reference

    run = call("start", "training")
    features = call("featurize", run, call("validate", run, call("ingest", run)))
    candidate = call("select", run, [call("train", run, features, "xgboost")])
    call("promote", run, call("evaluate", run, features, candidate))
    call("report", run)

    run = call("start", "inference")
    features = call("featurize", run, call("validate", run, call("ingest", run)))
    call("monitor", run, features, call("score", run, features))
    return list(found.values())


def _imports_of(
    workspace: Workspace, name: str, arguments: tuple[Any, ...]
) -> tuple[StageImports, Any]:
    code = (
        "import json, sys; from flight_delays.stages import run_stage; "
        "print(json.dumps(run_stage(sys.argv[1], *json.loads(sys.argv[2]))))"
    )
    command = workspace.command(
        *(workspace.python, "-X", "importtime", "-c", code, name, json.dumps(arguments))
    )
    done = subprocess.run(
        command.arguments,
        cwd=command.folder,
        env=command.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise CommandError(f"stage {name} failed:\n{done.stderr[-2000:]}")
    microseconds, modules = parse_import_times(done.stderr)
    heavy = tuple(package for package in HEAVY if package in modules)
    surplus = tuple(package for package in heavy if package not in USED[name])
    found = StageImports(name, microseconds / 1e6, len(modules), heavy, surplus)
    return found, json.loads(done.stdout.splitlines()[-1])


def parse_import_times(text: str) -> tuple[int, set[str]]:
    """Return the microseconds and the modules of what `-X importtime` printed."""
    prefix = "import time:"
    lines = [line.removeprefix(prefix) for line in text.splitlines() if line.startswith(prefix)]
    fields = [[field.strip() for field in line.split("|")] for line in lines]
    # The header is a line of the same form.
    entries = [(int(own), module) for own, _, module in fields if own.isdigit()]
    return sum(own for own, _ in entries), {module for _, module in entries}


def _bytecode(workspace: Workspace) -> Path:
    return workspace.folder / "bytecode"


def _as_new(workspace: Workspace) -> None:
    """Make the next run a first one."""
    for folder in (workspace.project / "var", _bytecode(workspace)):
        shutil.rmtree(folder, ignore_errors=True)


def versions(workspace: Workspace) -> dict[str, str]:
    """Return the versions of Python and of what matters in the project's environment."""
    code = (
        "import json, platform, sys; from importlib.metadata import version; "
        "print(json.dumps({'Python': platform.python_version(), "
        "**{name: version(name) for name in sys.argv[1:]}}))"
    )
    command = workspace.command(workspace.python, "-c", code, *VERSIONS)
    done = subprocess.run(
        command.arguments, cwd=command.folder, env=command.environment, check=True,
        capture_output=True,
    )  # fmt: skip
    found: dict[str, str] = json.loads(done.stdout)
    return found


ALL: dict[str, Callable[[Bench], None]] = {
    "render": render,
    "install": install,
    "run": run,
    "airflow": airflow,
    "engines": engines,
    "peer": peer,
    "data_path": data_path,
    "onboard": onboard,
    "imports": imports,
    "serving": serving,
    "image": image,
}
