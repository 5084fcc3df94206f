"""What every measurement works with."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from .measure import Command, Usage, median
from .results import MEGABYTE, Results, Row, Target
from .workspace import Workspace


@dataclass
class Bench:
    """What every measurement works with."""

    workspace: Workspace
    results: Results
    repeats: int
    say: Callable[[str], None]

    def measure(
        self, name: str, command: Command, *, before: Callable[[], object] = lambda: None,
        repeats: int | None = None,
    ) -> Usage:  # fmt: skip
        """Measure one command and note the median; `before` runs, unmeasured, before each call."""
        return self.compare({name: command}, before=before, repeats=repeats)[name]

    def compare(
        self, commands: dict[str, Command], *, before: Callable[[], object] = lambda: None,
        repeats: int | None = None,
    ) -> dict[str, Usage]:  # fmt: skip
        """Measure several commands in turn, so that whatever slows the machine slows them all."""
        calls = repeats or self.repeats
        usages: dict[str, list[Usage]] = {name: [] for name in commands}
        for call, (name, command) in itertools.product(range(calls), commands.items()):
            before()
            usage = command.measure()
            usages[name].append(usage)
            self.say(
                f"{name}, {call + 1} of {calls}: {usage.cpu:.2f} s CPU, {usage.wall:.2f} s wall, "
                f"{usage.peak / MEGABYTE:,.0f} MB"
            )
        medians = {name: median(several) for name, several in usages.items()}
        self.results.rows += [Row(name, calls, usage) for name, usage in medians.items()]
        return medians

    def promise(self, promise: str, measured: str, kept: bool) -> None:
        """Note a target and whether it is met."""
        self.results.targets.append(Target(promise, measured, kept))
