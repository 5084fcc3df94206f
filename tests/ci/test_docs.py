"""The pages: links lead somewhere, the README stays short, and code runs as it is printed."""

from __future__ import annotations

import re
import runpy
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from ..support.projects import make_installed_project
from ..support.template import ROOT

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)]+))?\)")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return what a page's headings are called in links, as GitHub has it."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        file = page.parent / target if target else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(f"{target}#{anchor}")
    assert broken == []


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_the_feature_that_looks_back_does_so_as_it_is_printed(tmp_path: Path) -> None:
    """What a customer returned lately is not known yet; without rows there is no error."""
    blocks = BLOCK.findall((ROOT / "docs" / "your-data.md").read_text(encoding="utf-8"))
    [code] = [block for block in blocks if "LOOKBACK = 8" in block]
    (tmp_path / "features.py").write_text(
        f"from __future__ import annotations\nimport polars as pl\n{code}"
    )
    features = runpy.run_path(str(tmp_path / "features.py"))["features"]
    orders = {
        "ordered_at": [date(2026, 1, 1), date(2026, 1, 2), date(2026, 2, 27), date(2026, 3, 3)],
        "customer": ["a", "a", "a", "a"],
        "returned": ["yes", "no", "yes", None],
    }
    table = pl.DataFrame(orders)
    context = SimpleNamespace(before=table[:3])

    assert features(table[3:], context)["customer_return_share"].to_list() == [0.5]
    assert features(table[:0], context).height == 0


def test_each_alert_is_explained() -> None:
    event = ROOT / "template" / "src" / "{{package_name}}" / "alerts" / "event.py"
    [titles] = re.findall(r"^_TITLES.*?^\}", event.read_text(), re.MULTILINE | re.DOTALL)
    explained = re.findall(
        r"^\| ([^|]+) \|", (ROOT / "docs" / "operate.md").read_text(), re.MULTILINE
    )
    kinds = dict(re.findall(r'"(\w+)": "([^"]+)"', titles))
    assert kinds.pop("test")
    assert set(kinds.values()) <= set(explained)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_channel_and_a_step_work_as_the_page_prints_them(sources: Path, tmp_path: Path) -> None:
    channel, step = BLOCK.findall((ROOT / "docs" / "extend.md").read_text(encoding="utf-8"))
    project = make_installed_project(sources, tmp_path / "project", orchestrator="prefect")
    package = project.path / "src" / project.package
    (package / "alerts" / "channels" / "file.py").write_text(channel)
    steps = package / "domain" / "steps.py"
    steps.write_text('"""Ours."""\n\n' + step)
    variables = {"ALERT_FILE": f"{tmp_path / 'alerts.txt'}", "PIPELINE_TRAINING__TRIALS": "1"}

    slug = project.answers["project_slug"]
    project.run(slug, "alert", "test", variables=variables)
    project.run(slug, "run", "training", "--partition", "2013-01-31", variables=variables)
    done = project.run(slug, "run", "inference", "--partition", "2013-02-01", variables=variables)

    told = (tmp_path / "alerts.txt").read_text().splitlines()
    assert len(told) >= 2
    assert "New champion" in told[1]
    rows = pl.read_parquet(project.path / "var" / "artifacts" / "exports" / "2013-02-01.parquet")
    assert f"rows {rows.height}" in done.stdout
