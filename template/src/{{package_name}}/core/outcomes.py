"""What came of a check, a gate or a decision, as values that travel as JSON.

Functions pass these objects, never prose. Only the outer layers (logs, alerts, the report, the
terminal and the engines' pages) call `str(outcome)`.
"""

from __future__ import annotations

from datetime import date
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

# Which window of partitions a training takes.
Window = Literal["normal", "wider"]
Decision = Literal["promote", "retrain", "keep"]


class Outcome(BaseModel):
    """Base of all outcomes: immutable, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Stored(BaseModel):
    """Base of what is kept in a file: it says which version of its form it has."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: int = 1


class Violation(Outcome):
    """A limit of the data contract that is broken; any of them rejects the partition.

    Attributes:
        check: The check's name, like `too_few_rows`.
        detail: What was seen and what is allowed.
        column: The column it is about, None for the partition as a whole.
        rows: How many rows break it, where rows do.
        partition: Which partition, where several were checked together.
    """

    check: str
    detail: str
    column: str | None = None
    rows: int | None = None
    partition: date | None = None

    def __str__(self) -> str:
        """Return one line for people."""
        where = f" [{self.partition}]" if self.partition else ""
        return f"{self.check}: {self.detail}{where}"


class CheckedPartition(Outcome):
    """What validation saw in one partition.

    Attributes:
        rows: Rows that were checked.
        quarantined: Rows that failed a check.
        violations: Broken limits; none when the partition was accepted.
        failed_checks: How many rows failed each `column: check`.
        first_invalid_rows: The first of the quarantined rows, with the checks in `failed_checks`.
    """

    partition: date
    rows: int
    quarantined: int
    violations: tuple[Violation, ...] = ()
    failed_checks: dict[str, int] = {}
    first_invalid_rows: tuple[dict[str, Any], ...] = ()


class GateResult(Outcome):
    """One gate and whether the measured value holds it.

    Attributes:
        bound: Whether `limit` is the least (min) or the most (max) the value may be, or the margin
            by which it must beat the champion's (improvement).
        measured_on: The held-out days, or predictions whose labels have arrived.
        champion: The champion's value, for an improvement.
        gain: How much better the value is than the champion's; below 0 for worse.
    """

    metric: str
    value: float
    bound: Literal["min", "max", "improvement"]
    limit: float
    passed: bool
    measured_on: Literal["holdout", "live"] = "holdout"
    champion: float | None = None
    gain: float | None = None

    @property
    def mark(self) -> str:
        """Return "passed" or "failed"."""
        return "passed" if self.passed else "failed"

    @property
    def sentence(self) -> str:
        """Return value and limit in a sentence."""
        live = "live " if self.measured_on == "live" else ""
        value = f"{live}{self.metric} {self.value:.4f}"
        if self.bound == "min":
            return f"{value}, at least {self.limit:g} needed"
        if self.bound == "max":
            return f"{value}, at most {self.limit:g} allowed"
        return (
            f"{value} against the champion's {self.champion:.4f}: better by {self.gain:.4f}, "
            f"more than {self.limit:g} needed"
        )

    def __str__(self) -> str:
        """Return one line for people."""
        return f"{self.mark}: {self.sentence}"


class Note(Outcome):
    """Something beside the gates that led to a decision, or that a reader of it should know."""

    kind: Literal["already_champion", "wider_window_available", "champion_saw_holdout"]
    until: date | None = None

    mark: ClassVar[str] = "note"

    @property
    def sentence(self) -> str:
        """Return the note in a sentence."""
        return {
            "already_champion": "this very model already is the champion",
            "wider_window_available": (
                "a wider window of partitions is there: train once more with it"
            ),
            "champion_saw_holdout": (
                f"the champion learned from partitions up to {self.until}, so the comparison "
                "favours it"
            ),
        }[self.kind]

    def __str__(self) -> str:
        """Return one line for people."""
        return f"{self.mark}: {self.sentence}"


class Verdict(Outcome):
    """A decision about a challenger and everything it rests on."""

    decision: Decision
    gates: tuple[GateResult, ...] = ()
    notes: tuple[Note, ...] = ()

    @property
    def reasons(self) -> list[GateResult | Note]:
        """Return why, what failed first."""
        return [*sorted(self.gates, key=lambda gate: gate.passed), *self.notes]


class DriftVerdict(Outcome):
    """Whether the features that must be stable have drifted.

    Attributes:
        drifted: Stable features whose population stability index is above `max_psi`, worst first.
        stable_features: How many features must be stable.
        exceeded: Whether more of them drifted than `[monitoring] max_drifted_share` allows.
    """

    drifted: tuple[str, ...]
    stable_features: int
    max_psi: float
    exceeded: bool

    mark: ClassVar[str] = "failed"

    @property
    def sentence(self) -> str:
        """Return what drifted in a sentence."""
        return (
            f"{len(self.drifted)} of {self.stable_features} stable features drifted: "
            f"{', '.join(self.drifted)} (population stability index above {self.max_psi:g})"
        )

    def __str__(self) -> str:
        """Return one line for people."""
        return self.sentence
