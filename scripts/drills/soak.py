"""What a project's runs leave behind, day after day: memory, open files, and bytes on the disk."""

from __future__ import annotations

import json
import re
from datetime import date, timedelta
from pathlib import Path
from statistics import linear_regression

import polars as pl

from .under_test import Site

# What a soak may grow by: for each partition, all in all, and in its second half against its first.
MEMORY_BYTES = 1_000_000
OPEN_FILES = 8
FASTER = 1.5
SOAK = """
import json, os
from pathlib import Path
from {package}.pipeline import execute
def size(folder):
    return sum(one.stat().st_size for one in Path(folder).rglob("*") if one.is_file())
for number, partition in enumerate({partitions}, 1):
    execute("training", partition)
    execute("inference", partition)
    if number % 10 == 0:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        print("SOAK", json.dumps({{
            "partitions": number, "memory": pages * os.sysconf("SC_PAGE_SIZE"),
            "open files": len(os.listdir("/proc/self/fd")),
            "run records": size("var/artifacts/runs"), "artefacts": size("var/artifacts"),
            "store": size("var/mlflow"),
        }}), flush=True)
"""


def soak(site: Site, count: int) -> int:
    """Train and score partition after partition in one process; returns how many things grow."""
    partitions = add_partitions(site.path / "data" / "sample", count)
    number = site.start("-c", SOAK.format(package=site.package, partitions=partitions))
    code, found = None, list[dict[str, int]]()
    while code is None:
        code = site.ended(number, seconds=1)
        lines = re.findall(r"^SOAK (.*)$", site.log.read_text(), re.MULTILINE)
        for line in lines[len(found) :]:
            found.append(json.loads(line))
            print(", ".join(f"{name} {value:,}" for name, value in found[-1].items()), flush=True)
    failed = [f"it ends with {code}: {site.said}"] if code else growth(found)
    print("\n".join(failed) or "it does not grow")
    return len(failed)


def growth(found: list[dict[str, int]]) -> list[str]:
    """Return what grows in the second half of a soak that must not, or faster than in the first."""
    first, middle, last = found[0], found[len(found) // 2], found[-1]
    half = [one for one in found if one["partitions"] >= middle["partitions"]]
    slope = linear_regression(
        [one["partitions"] for one in half], [one["memory"] for one in half]
    ).slope
    failed = []
    if slope > MEMORY_BYTES:
        failed.append(f"memory grows by {slope:,.0f} bytes a partition")
    if last["open files"] > first["open files"] + OPEN_FILES:
        failed.append(f"open files grow from {first['open files']} to {last['open files']}")
    for name in ("run records", "artefacts", "store"):
        before, after = (
            (end[name] - begin[name]) / (end["partitions"] - begin["partitions"])
            for begin, end in ((first, middle), (middle, last))
        )
        print(f"{name}: {before:,.0f} bytes a partition at first, {after:,.0f} at last")
        if after > before * FASTER:
            failed.append(f"{name} grow faster and faster")
    return failed


def add_partitions(folder: Path, count: int) -> list[str]:
    """Write copies of the sample's days, as days that follow them; returns their names."""
    days = sorted(folder.glob("*.parquet"))
    last, names = date.fromisoformat(days[-1].stem), []
    for number in range(count):
        source = days[number % len(days)]
        day = last + timedelta(days=number + 1)
        shift = pl.selectors.temporal() + (day - date.fromisoformat(source.stem))
        pl.read_parquet(source).with_columns(shift).write_parquet(folder / f"{day}.parquet")
        names.append(f"{day}")
    return names
