"""The results of all measurements: as a table in the terminal, as RESULTS.md, and as JSON."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich import box
from rich.table import Table

from .measure import Usage

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Row:
    """One measured command: the median of all its calls, or why it was not measured."""

    name: str
    calls: int = 0
    usage: Usage | None = None
    note: str = ""

    def cells(self) -> list[str]:
        """Return name, CPU seconds, wall seconds, megabytes and calls as text."""
        if self.usage is None:
            return [self.name, self.note, "", "", ""]
        usage = self.usage
        numbers = [f"{usage.cpu:.2f}", f"{usage.wall:.2f}", f"{usage.peak / MEGABYTE:,.0f}"]
        return [self.name, *numbers, f"{self.calls}"]


@dataclass(frozen=True)
class Target:
    """What was promised, what was measured, and whether the promise is kept."""

    promise: str
    measured: str
    kept: bool


@dataclass(frozen=True)
class StageImports:
    """What the process of one stage imported: seconds, modules, and the heavy packages among them.

    `surplus` are heavy packages the stage has no use for.
    """

    stage: str
    seconds: float
    modules: int
    heavy: tuple[str, ...]
    surplus: tuple[str, ...]

    def cells(self) -> list[str]:
        """Return stage, seconds, modules and heavy packages as text."""
        names = [f"{name} (!)" if name in self.surplus else name for name in self.heavy]
        return [self.stage, f"{self.seconds:.2f}", f"{self.modules:,}", ", ".join(names) or "none"]


@dataclass
class Results:
    """Everything one call of the benchmarks found."""

    versions: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    imports: list[StageImports] = field(default_factory=list)

    def tables(self) -> list[Table]:
        """Return the tables for a terminal."""
        return [_rich(heading, header, rows) for heading, header, rows in self._tables() if rows]

    def markdown(self) -> str:
        """Return the page for the repository: no host names, no paths."""
        parts = [
            "# Results\n\nWritten by `uv run poe bench`; what the numbers mean is in "
            "[README.md](README.md).\n",
            f"{datetime.now(UTC).date()}; {machine()}.\n\n{_listing(self.versions)}.\n",
        ]
        for heading, header, rows in self._tables():
            if rows:
                parts.append(f"## {heading}\n\n{_markdown(header, rows)}")
        return "\n".join(parts)

    def as_json(self) -> dict[str, Any]:
        """Return all results and the machine, unrounded."""
        return {"machine": machine(), **asdict(self)}

    def _tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        targets = [
            [target.promise, target.measured, "✓" if target.kept else "✗"]
            for target in self.targets
        ]
        measured = ["", "CPU s", "wall s", "peak MB", "calls"]
        imported = ["stage", "seconds", "modules", "heavy packages"]
        return [
            ("Measurements", measured, [row.cells() for row in self.rows]),
            ("Imports", imported, [stage.cells() for stage in self.imports]),
            ("Targets", ["target", "measured", ""], targets),
        ]


def machine() -> str:
    """Return what matters of the machine, and how busy it is."""
    memory = psutil.virtual_memory().total / 1e9
    load = os.getloadavg()[0]
    system = f"{platform.system()} on {platform.machine()}"
    return f"{os.cpu_count()} cores, {memory:.0f} GB, {system}, load average {load:.1f}"


def write_markdown(results: Results, path: Path) -> None:
    """Write the page."""
    path.write_text(results.markdown(), encoding="utf-8")


def _listing(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _rich(heading: str, header: list[str], rows: list[list[str]]) -> Table:
    table = Table(*header, title=heading, title_justify="left", box=box.SIMPLE)
    for row in rows:
        table.add_row(*row)
    return table


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
