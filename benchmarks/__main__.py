"""Measure: `uv run poe bench`. A complete call without failures rewrites RESULTS.md."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from rich.console import Console

from .bench import Bench
from .measure import CommandError
from .results import Results, write_markdown
from .suite import ALL, versions
from .workspace import Workspace

REPEATS = 5
PAGE = Path(__file__).with_name("RESULTS.md")


def main() -> int:
    """Run what was asked for; returns 1 when a target is missed or a part fails."""
    parser = argparse.ArgumentParser(prog="poe bench", description=__doc__)
    parser.add_argument("--only", choices=ALL, action="append", help="just this one; may repeat")
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"calls of each ({REPEATS})")
    parser.add_argument("--json", type=Path, help="also write all results to this file")
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error("--repeats must be 1 or more")

    console, results = Console(), Results()
    with tempfile.TemporaryDirectory(prefix="benchmarks-", ignore_cleanup_errors=True) as folder:
        workspace = Workspace(Path(folder).resolve())
        bench = Bench(
            workspace,
            results,
            arguments.repeats,
            lambda line: console.print(line, highlight=False, soft_wrap=True),
        )
        failed = [name for name in arguments.only or ALL if not attempt(name, bench)]
        results.versions = versions(workspace)
    for table in results.tables():
        console.print(table)
    if not arguments.only and not failed and arguments.repeats >= REPEATS:
        write_markdown(results, PAGE)
        console.print(f"written: {PAGE.name}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results.as_json(), indent=1))
    return 0 if not failed and all(target.kept for target in results.targets) else 1


def attempt(name: str, bench: Bench) -> bool:
    """Run one part; when a command of it fails, say so and let the other parts go on."""
    try:
        ALL[name](bench)
    except CommandError as error:
        bench.say(f"{name}: failed: {error}")
        return False
    return True


if __name__ == "__main__":
    raise SystemExit(main())
