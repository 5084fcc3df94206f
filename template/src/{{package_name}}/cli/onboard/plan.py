"""What a table's columns are for, as it is proposed and written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ...core.cadence import Cadence, Unit

Problem = Literal["classification", "regression"]


@dataclass(frozen=True)
class Asked:
    """What was given on the command line; empty fields are proposed."""

    target: str
    time: str = ""
    key: tuple[str, ...] = ()
    group: tuple[str, ...] = ()
    cadence: Unit | None = None
    problem: Problem | None = None
    lags: tuple[int, ...] = ()


@dataclass(frozen=True)
class Windows:
    """How many partitions are learned from, held out and watched, and the rows of each."""

    window: int = 1
    wider: int = 1
    holdout: int = 1
    watched: int = 1
    typical_rows: int = 0
    least_rows: int = 0
    newest: str = ""


@dataclass(frozen=True)
class Part:
    """A feature made of a time: its weekday, say."""

    name: str
    column: str
    part: Literal["weekday", "hour", "month"]


@dataclass(frozen=True)
class Plan:
    """What each column is for.

    Attributes:
        target: What is predicted.
        classes: Of a classification, the most frequent first.
        time: The column that partitions are cut by, if any.
        key: The columns that identify a row, if any do.
        group: The columns whose rows a split keeps together.
        numeric: Features as they are.
        categorical: Features that are encoded.
        steady: Of these two, those whose drift asks for a new model.
        parts: Features of times.
        lags: Features made of the target: how many partitions before, by name.
        left_out: Why a column is not a feature, by column.
        suspicious: What to look at, by column.
        reasons: Why a role was proposed, by role.
    """

    target: str
    problem: Problem
    classes: tuple[object, ...] = ()
    time: str | None = None
    cadence: Cadence = field(default_factory=lambda: Cadence("none"))
    windows: Windows = Windows()
    key: tuple[str, ...] = ()
    group: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    steady: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    lags: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    suspicious: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def contract(self) -> tuple[str, ...]:
        """The columns that a partition must have."""
        used = [*self.key, *((self.time,) if self.time else ()), *self.group]
        used += [*self.numeric, *self.categorical, *(part.column for part in self.parts)]
        return tuple(dict.fromkeys([*used, self.target]))

    @property
    def series(self) -> tuple[str, ...]:
        """The columns that name what has its own history: the key without the time.

        None where the key names rows without it: such a row never comes again.
        """
        if self.time not in self.key:
            return ()
        return tuple(name for name in self.key if name != self.time)
