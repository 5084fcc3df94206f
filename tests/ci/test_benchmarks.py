"""The benchmarks: both sides do the same work, and their results can be read."""

from pathlib import Path

import polars as pl
import pytest

from benchmarks import big_data
from benchmarks.measure import Command, CommandError, Usage, median
from benchmarks.results import Results, Row, StageImports, Target, write_markdown
from benchmarks.suite import (
    METRIC_TOLERANCE,
    by_hand_command,
    metric_difference,
    parse_import_times,
)
from benchmarks.workspace import SCRIPTS, Workspace

from ..support.template import ROOT

SAMPLE = sorted((ROOT / "template" / "data" / "sample").glob("*.parquet"))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("benchmarks"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_bound_reaches_the_metrics_of_a_run(workspace: Workspace) -> None:
    program = workspace.python.with_name("flight-delays")
    workspace.command(program, "run", "training").measure()
    by_hand_command(workspace).measure()
    assert metric_difference(workspace) <= METRIC_TOLERANCE


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_both_data_paths_write_the_same_rows(workspace: Workspace, tmp_path: Path) -> None:
    source, ours, bound = (tmp_path / name for name in ("source", "ours", "bound"))
    days = SAMPLE[:21]
    big_data.tile(days, source, 21 * 2_000)
    workspace.command(
        workspace.python,
        SCRIPTS / "data_path.py",
        days[-1].stem,
        PIPELINE_DATA__SOURCE=source,
        PIPELINE_STORAGE__ROOT=ours,
    ).measure()
    workspace.command(workspace.python, SCRIPTS / "data_path_bound.py", source, bound).measure()
    for kind in ("quarantine", "validated", "features"):
        for day in days:
            (mine,) = (ours / kind / day.stem).glob("*.parquet")
            left, right = pl.read_parquet(mine), pl.read_parquet(bound / kind / day.name)
            assert left.height > 0
            # The names of failed checks differ; which rows failed does not.
            columns = [name for name in left.columns if name != "failed_checks"]
            assert left.select(columns).equals(right.select(columns))


def test_tiled_rows_keep_the_key_unique(tmp_path: Path) -> None:
    big_data.tile(SAMPLE[:2], tmp_path / "rows", 10_000)
    rows = pl.read_parquet(tmp_path / "rows" / "*.parquet")
    assert rows.height == 10_000
    assert rows.schema == pl.read_parquet(SAMPLE[0]).schema
    assert not rows.select("date", "flight", *big_data.REST_OF_KEY).is_duplicated().any()
    assert rows.filter(pl.col("distance") == 0).height == 10


def test_usage_counts_child_processes(workspace: Workspace) -> None:
    child = "n = sum(i * i for i in range(3_000_000)); print(n)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    usage = workspace.command("python3", "-c", code).measure()
    idle = workspace.command("python3", "-c", "pass").measure()
    assert usage.cpu > 2 * idle.cpu


def test_usage_counts_processes_that_outlive_their_parent(workspace: Workspace) -> None:
    """A fork server ends after the command that started it, and nobody else waits for it."""
    child = "n = sum(i * i for i in range(6_000_000)); print(n)"
    code = (
        "import subprocess, sys, time; "
        f"subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(0.3)"
    )
    usage = workspace.command("python3", "-c", code).measure()
    idle = workspace.command("python3", "-c", "pass").measure()
    assert usage.cpu > 5 * idle.cpu


def test_failed_command_shows_its_last_words(tmp_path: Path, workspace: Workspace) -> None:
    command = Command(["sh", "-c", "echo no luck; exit 3"], tmp_path, workspace.environment)
    with pytest.raises(CommandError, match=r"sh ended with 3:\nno luck"):
        command.measure()


def test_median_takes_each_number_on_its_own() -> None:
    assert median([Usage(1, 9, 5), Usage(2, 8, 7), Usage(3, 7, 6)]) == Usage(2, 8, 6)


def test_import_times_are_parsed() -> None:
    text = (
        "import time: self [us] | cumulative | imported package\n"
        "import time:       120 |        120 |   encodings.aliases\n"
        "[task] a line of the log\n"
        "import time:        80 |        200 | encodings\n"
    )
    assert parse_import_times(text) == (200, {"encodings.aliases", "encodings"})


def test_page_shows_results_and_neither_host_nor_path(tmp_path: Path) -> None:
    results = Results(
        versions={"polars": "2.1.0"},
        rows=[
            Row("run", 5, Usage(cpu=9.876, wall=12.3, peak=432_100_000)),
            Row("peer", note="not measured: no network"),
        ],
        targets=[Target("fast", "1.11 times", True), Target("small", "3 GB", False)],
        imports=[StageImports("ingest", 0.3, 1553, ("polars", "mlflow"), ("mlflow",))],
    )
    page = tmp_path / "RESULTS.md"
    write_markdown(results, page)
    lines = page.read_text().splitlines()
    assert "| run | 9.88 | 12.30 | 432 | 5 |" in lines
    assert "| peer | not measured: no network |  |  |  |" in lines
    assert "| fast | 1.11 times | ✓ |" in lines
    assert "| small | 3 GB | ✗ |" in lines
    assert "| ingest | 0.30 | 1,553 | polars, mlflow (!) |" in lines
    assert str(ROOT) not in page.read_text()
    assert [table.row_count for table in results.tables()] == [2, 1, 2]
