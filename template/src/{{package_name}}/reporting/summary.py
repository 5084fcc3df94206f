"""What became of a run, put together from the records of its stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, Field

from ..core import storage
from ..core.outcomes import Violation
from ..core.records import StageError, StageRecord, read_records
from ..core.refs import (
    DatasetRef,
    EvaluationRef,
    FeaturesRef,
    MonitorRef,
    PromotionRef,
    ReportRef,
    Run,
    ScoresRef,
)

if TYPE_CHECKING:
    from ..ml.drift import FeatureDrift

# The stages of each pipeline, as they follow each other.
ORDER = {
    "training": ("ingest", "validate", "featurize", "train", "select", "evaluate", "promote"),
    "inference": ("ingest", "validate", "featurize", "score", "monitor"),
}
# The stage that completes each pipeline: a run without its record did not do its work.
LAST_STAGE = {pipeline: stages[-1] for pipeline, stages in ORDER.items()}


class Results(BaseModel):
    """What each stage returned last; None where the run did not get that far."""

    ingest: DatasetRef | None = None
    # BaseModel has its own `validate`.
    validated: DatasetRef | None = Field(default=None, alias="validate")
    featurize: FeaturesRef | None = None
    evaluate: EvaluationRef | None = None
    promote: PromotionRef | None = None
    score: ScoresRef | None = None
    monitor: MonitorRef | None = None
    report: ReportRef | None = None

    @classmethod
    def of(cls, records: Sequence[StageRecord]) -> Results:
        """Return the results in a run's records."""
        given = {record.stage: record.result for record in records if record.result is not None}
        return cls.model_validate(given)

    @property
    def data(self) -> DatasetRef | None:
        """What the run knows of its data: as validated, or else as it was read."""
        return self.validated or self.ingest


@dataclass(frozen=True)
class Summary:
    """A run that has ended.

    Attributes:
        records: What its stages recorded, in the order in which they started.
        failures: The labels of the stages that failed, and their errors; None where a stage left
            no record of how. The run succeeded when there is nothing.
        tracking_url: The run's page in MLflow.
    """

    run: Run
    records: Sequence[StageRecord]
    failures: Mapping[str, StageError | None]
    tracking_url: str

    @cached_property
    def results(self) -> Results:
        """What its stages returned."""
        return Results.of(self.records)

    @property
    def status(self) -> Literal["FINISHED", "FAILED", "KILLED"]:
        """What MLflow calls how the run ended; a signal kills it."""
        if not self.failures:
            return "FINISHED"
        codes = [record.exit_code or 0 for record in self.records if record.error]
        return "KILLED" if any(code > 128 for code in codes) else "FAILED"

    @property
    def violations(self) -> list[Violation]:
        """The broken limits of the data contract."""
        errors = [error for error in self.failures.values() if error]
        return [violation for error in errors for violation in error.violations]

    @property
    def rows(self) -> dict[str, int]:
        """How many rows each stage that handles rows returned, by its label."""
        results = {record.label: record.result or {} for record in self.records}
        return {label: result["rows"] for label, result in results.items() if "rows" in result}

    @cached_property
    def drift(self) -> tuple[FeatureDrift, ...]:
        """What monitoring measured, or else the evaluation."""
        from ..ml.drift import DriftTable

        if self.results.monitor:
            path = storage.path_of(self.results.monitor.uri)
        elif self.results.evaluate:
            path = storage.path_of(self.results.evaluate.uri) / "drift.json"
        else:
            return ()
        return DriftTable.model_validate_json(path.read_text()).features


def summarize(run: Run, failed: Sequence[str], tracking_url: str) -> Summary:
    """Read the records of a run.

    Args:
        run: The run.
        failed: Stages the engine knows to have failed; a killed process leaves no record.
        tracking_url: The run's page in MLflow.
    """
    records = [record for record in read_records(run.key) if record.stage != "report"]
    failures: dict[str, StageError | None] = {
        record.label: record.error for record in records if record.error is not None
    }
    recorded = {record.stage for record in records if record.error}
    failures |= dict.fromkeys(stage for stage in failed if stage not in recorded)
    last = LAST_STAGE[run.pipeline]
    if not failures and all(record.stage != last for record in records):
        failures[last] = None
    return Summary(run, records, failures, tracking_url)
