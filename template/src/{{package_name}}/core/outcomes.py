"""What came of a check, a gate or a decision, as values that travel as JSON.

Functions pass these objects, never prose. Only the outer layers (logs, alerts, the report, the
terminal and the engines' pages) call `str(outcome)`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

from .plain import plain

# Which window of partitions a training takes.
Window = Literal["normal", "wider"]
Decision = Literal["promote", "retrain", "keep"]
# The pipeline's verbs, each a module of stages/.
STAGES = (
    "start",
    "ingest",
    "validate",
    "featurize",
    "train",
    "select",
    "evaluate",
    "promote",
    "score",
    "monitor",
    "report",
)
# What a challenger must beat; the baseline is a model that has learned the target alone.
Rival = Literal["champion", "baseline"]


class Outcome(BaseModel):
    """Base of all outcomes: immutable, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Stored(BaseModel):
    """Base of what is kept in a file: it states the version of its format."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: int = 1


def _in_line(value: Any) -> Any:
    return plain(value, limit=1_000, one_line=True) if isinstance(value, str) else value


# One line that may hold values of the data, and such a value.
Line = Annotated[str, AfterValidator(_in_line)]
Cell = Annotated[Any, AfterValidator(_in_line)]


class Violation(Outcome):
    """A limit of the data contract that is broken; any of them rejects the partition.

    Attributes:
        check: The check's name, like `too_few_rows`.
        detail: What was found and what is allowed.
        column: The column it is about, None for the partition as a whole.
        rows: How many rows break it, where rows do.
        partition: Which partition, where several were checked together.
    """

    check: str
    detail: Line
    column: Line | None = None
    rows: int | None = None
    partition: str | None = None

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
        casts: What was cast to the contract's types without a loss.
        failed_checks: How many rows failed each `column: check`.
        first_invalid_rows: The first of the quarantined rows, with the checks in `failed_checks`.
        warnings: What is odd but does not reject.
    """

    partition: str
    rows: int
    quarantined: int
    violations: tuple[Violation, ...] = ()
    casts: tuple[str, ...] = ()
    failed_checks: dict[str, int] = {}
    first_invalid_rows: tuple[dict[str, Cell], ...] = ()
    warnings: tuple[Violation, ...] = ()


class GateResult(Outcome):
    """One gate and whether the measured value passes it.

    Attributes:
        bound: Whether `limit` is the least (min) or the most (max) the value may be, or the margin
            by which it must beat another model's (improvement).
        measured_on: Held-out rows, or predictions whose labels have arrived.
        against: Which other model, for an improvement.
        other: That model's value.
        gain: How much better the value is than that; below 0 for worse.
    """

    metric: str
    value: float
    bound: Literal["min", "max", "improvement"]
    limit: float
    passed: bool
    measured_on: Literal["holdout", "live"] = "holdout"
    against: Rival | None = None
    other: float | None = None
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
            f"{value} against the {self.against}'s {self.other:.4f}: better by {self.gain:.4f}, "
            f"more than {self.limit:g} needed"
        )

    def __str__(self) -> str:
        """Return one line for people."""
        return f"{self.mark}: {self.sentence}"


class Misfit(Outcome):
    """Why today's code cannot use a stored model.

    Attributes:
        columns: The features it was trained on that are gone, or of another type.
        detail: The error, or what it predicts instead.
    """

    kind: Literal["not_loadable", "columns_gone", "types_changed", "fails", "other_target"]
    columns: tuple[str, ...] = ()
    detail: str = ""

    @classmethod
    def of(cls, kind: Literal["not_loadable", "fails"], error: Exception) -> Misfit:
        """Return the misfit that an error shows: its type and the first line of its message."""
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        return cls(kind=kind, detail=text if len(text) <= 200 else text[:199] + "…")

    def __str__(self) -> str:
        """Return the rest of a sentence that begins with the model."""
        names = ", ".join(f"'{name}'" for name in self.columns)
        return {
            "not_loadable": f"it cannot be loaded ({self.detail})",
            "columns_gone": f"it was trained on {names}, which domain/features.py makes no more",
            "types_changed": f"it was trained on {names} of another type",
            "fails": f"its prediction fails ({self.detail})",
            "other_target": f"it predicts {self.detail}",
        }[self.kind]


class Note(Outcome):
    """Something besides the gates that led to a decision, or that its reader should know.

    Attributes:
        version: Which version of the model it is about.
        classes: How many held-out rows each of the classes has that it is about.
        until: The newest partition that the champion learned from.
        at: When a person took the version back.
    """

    kind: Literal[
        "already_champion",
        "champion_breaks_gate",
        "champion_may_know_groups",
        "champion_moved",
        "champion_not_comparable",
        "champion_saw_holdout",
        "classes_never_predicted",
        "classes_not_learned",
        "few_rows_of_classes",
        "wider_window_available",
        "withdrawn",
    ]
    version: int | None = None
    classes: dict[Line, int] = {}
    until: str | None = None
    at: str | None = None
    gate: GateResult | None = None
    misfit: Misfit | None = None

    mark: ClassVar[str] = "note"

    @property
    def sentence(self) -> str:
        """Return the note in a sentence."""
        shown = [f"'{name}' ({rows:,})" for name, rows in list(self.classes.items())[:10]]
        counted = f"{', '.join(shown)}{' …' * (len(self.classes) > 10)}"
        return {
            "already_champion": "this very model already is the champion",
            "champion_breaks_gate": (
                f"the champion breaks a gate: {self.gate.sentence if self.gate else ''}"
            ),
            "champion_may_know_groups": (
                f"version {self.version}, the champion, was trained on another split and may have "
                "learned from groups that are held out now, so the comparison may favour it"
            ),
            "champion_moved": (
                f"version {self.version or 'none'} became champion since the evaluation, so the "
                "challenger was compared with it"
            ),
            "champion_not_comparable": (
                f"version {self.version}, the champion, is not comparable, so the absolute gates "
                f"decide: {self.misfit}"
            ),
            "classes_not_learned": (
                f"not learned, and never predicted, since no row to learn from is of it: {counted} "
                "(its held-out rows); a wider window may have some"
            ),
            "classes_never_predicted": (
                f"never predicted on held-out rows, some of which are of it: {counted}; see the "
                "confusion matrix, class weights and THRESHOLD"
            ),
            "few_rows_of_classes": (
                f"few held-out rows are of {counted}: what is measured says little of them"
            ),
            "wider_window_available": (
                "a wider window of partitions is there: train once more with it"
            ),
            "withdrawn": (
                f"this very model is version {self.version}, which a person took back on "
                f"{self.at}: `champion promote {self.version} --force` brings it back"
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


class Succession(Stored):
    """How a version became champion; kept with it in the registry.

    Attributes:
        replaces: The champion until then, None where there was none.
        at: When, in UTC.
        why: It passed the gates, a rollback put it back, or a person chose it.
        run: The key of the run whose gates it passed.
    """

    replaces: int | None
    at: datetime
    why: Literal["gates", "rollback", "person"]
    run: str | None = None

    def __str__(self) -> str:
        """Return it in words."""
        after = f" after version {self.replaces}" if self.replaces else ""
        return {
            "gates": f"passed the gates in {self.run}{after}",
            "rollback": f"put back{after} by a rollback",
            "person": f"chosen by a person{after}",
        }[self.why]


class DriftVerdict(Outcome):
    """Whether the features that must be stable have drifted.

    Attributes:
        drifted: Stable features whose population stability index is above `max_psi`, worst first.
        stable_features: How many features that must be stable were compared.
        exceeded: Whether more of them drifted than `[monitoring] max_drifted_share` allows.
        not_compared: Features without a counterpart among those that the champion learned from.
    """

    drifted: tuple[str, ...]
    stable_features: int
    max_psi: float
    exceeded: bool
    not_compared: tuple[str, ...] = ()

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
