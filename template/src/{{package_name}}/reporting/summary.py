"""What became of a run, put together from the records of its stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from ..core.outcomes import Violation
from ..core.records import StageError, StageRecord, read_records
from ..core.refs import (
    EvaluationRef,
    MonitorRef,
    PromotionRef,
    Ref,
    Run,
    ScoresRef,
)

# The stage that completes each pipeline: a run without its record did not do its work.
LAST_STAGE = {"training": "promote", "inference": "monitor"}

R = TypeVar("R", bound=Ref)


@dataclass(frozen=True)
class Failure:
    """A stage that failed; without an error when it left no record of how."""

    label: str
    error: StageError | None = None

    @property
    def violations(self) -> tuple[Violation, ...]:
        """The broken limits, when the error is that data was rejected."""
        return self.error.violations if self.error else ()


@dataclass(frozen=True)
class Summary:
    """A run that has ended.

    Attributes:
        records: What its stages recorded, in the order in which they started.
        failures: What failed; the run succeeded when there is nothing.
        tracking_url: The run's page in MLflow.
    """

    run: Run
    records: Sequence[StageRecord]
    failures: Sequence[Failure]
    tracking_url: str

    @property
    def violations(self) -> list[Violation]:
        """The broken limits of the data contract."""
        return [violation for failure in self.failures for violation in failure.violations]

    @property
    def failed_stages(self) -> tuple[str, ...]:
        """The labels of the stages that failed."""
        return tuple(failure.label for failure in self.failures)

    @cached_property
    def evaluation(self) -> EvaluationRef | None:
        """The last evaluation."""
        return self.latest("evaluate", EvaluationRef)

    @cached_property
    def promotion(self) -> PromotionRef | None:
        """What became of the challenger."""
        return self.latest("promote", PromotionRef)

    @cached_property
    def scores(self) -> ScoresRef | None:
        """The predictions."""
        return self.latest("score", ScoresRef)

    @cached_property
    def monitoring(self) -> MonitorRef | None:
        """Drift and live performance."""
        return self.latest("monitor", MonitorRef)

    def latest(self, stage: str, kind: type[R]) -> R | None:
        """Return what a stage returned last; None when the run did not get that far."""
        for record in reversed(self.records):
            if record.stage == stage and record.result is not None:
                return kind.model_validate(record.result)
        return None


def summarize(run: Run, failed: Sequence[str], tracking_url: str) -> Summary:
    """Read the records of a run.

    Args:
        run: The run.
        failed: Stages the engine knows to have failed; a killed process leaves no record.
        tracking_url: The run's page in MLflow.
    """
    records = [record for record in read_records(run.key) if record.stage != "report"]
    return Summary(run, records, find_failures(run, records, failed), tracking_url)


def find_failures(run: Run, records: Sequence[StageRecord], failed: Sequence[str]) -> list[Failure]:
    """Return the stages whose record holds an error, then those only the engine knows of."""
    failures = [Failure(record.label, record.error) for record in records if record.error]
    recorded = {record.stage for record in records if record.error}
    failures += [Failure(stage) for stage in failed if stage not in recorded]
    last = LAST_STAGE[run.pipeline]
    if not failures and all(record.stage != last for record in records):
        failures.append(Failure(last))
    return failures
