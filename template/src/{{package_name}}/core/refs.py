"""The small typed references that travel between stages.

Data never travels through the orchestrator: a stage writes files and returns a reference to them.
Every reference is frozen and survives a round trip through JSON, so any engine can carry it.
"""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from .outcomes import DriftVerdict, GateResult, Stored, Verdict, Window
from .settings import Settings, load_settings

Pipeline = Literal["training", "inference"]


class Ref(BaseModel):
    """Base of all references: immutable, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Run(Ref):
    """One run of a pipeline for one partition.

    Attributes:
        pipeline: Which graph runs.
        partition: The day whose data this run is about; the newest day of its window.
        key: Unique name of the run, from the engine where there is one.
        tracking_run_id: The parent MLflow run; every stage gets it from here.
        settings: What the run goes by. They do not travel: they may hold secrets, and each process
            reads its own.
    """

    pipeline: Pipeline
    partition: date
    key: str
    tracking_run_id: str
    settings: Settings = Field(default_factory=load_settings, exclude=True, repr=False)


class PartitionFile(Ref):
    """One day of a dataset: a file, its row count and the fingerprint of its content."""

    partition: date
    uri: str
    rows: int
    fingerprint: str


class Manifest(Stored):
    """The files of a dataset, oldest partition first."""

    files: tuple[PartitionFile, ...]


class DatasetRef(Ref):
    """Rows of a window of partitions, listed file by file in the manifest at `uri`.

    Attributes:
        uri: Address of the manifest, see `storage.read_manifest`.
        validated: True only for what the validate stage let through.
        window: Which window of partitions was taken; a retraining takes the wider one.
    """

    uri: str
    rows: int
    fingerprint: str
    validated: bool = False
    window: Window = "normal"
    metrics: dict[str, float] = {}


class FeaturesRef(Ref):
    """Features and target of a window of partitions, one file per day.

    Attributes:
        uri: Address of the manifest, see `storage.read_manifest`.
        reference_uri: A sample of the training days' features, to measure drift against later.
        holdout_from: First day kept from training and used to evaluate; None for inference.
        rows: Rows of all days.
        holdout_rows: Rows from `holdout_from` on.
        dataset_fingerprint: Fingerprint of the validated dataset the features come from.
    """

    uri: str
    rows: int
    holdout_rows: int = 0
    fingerprint: str
    dataset_fingerprint: str
    reference_uri: str | None = None
    holdout_from: date | None = None
    window: Window = "normal"


class CandidateRef(Ref):
    """One trained model.

    Attributes:
        tracking_run_id: The candidate's own MLflow run, a child of the pipeline's run.
        model_uri: Address of the logged model, as MLflow loads it.
        score: Primary metric on the newest days of the training window; compares candidates.
        fingerprint: Of everything the model depends on; equal fingerprints mean equal models.
        trained_until: The newest day the model has seen.
        reference_uri: See `FeaturesRef`; kept with the model for as long as it lives.
    """

    candidate: str
    tracking_run_id: str
    model_uri: str
    score: float
    params: dict[str, float | int | str | bool | None]
    fingerprint: str
    trained_until: date
    reference_uri: str
    window: Window = "normal"


class EvaluationRef(Ref):
    """A challenger's metrics on the holdout days, beside the champion's, and what follows.

    Attributes:
        uri: Folder with `predictions.parquet` (target, prediction), `importance.json` and
            `drift.json` for the report.
        champion_version: Registry version of the champion, None where there is none yet.
        champion_metrics: The champion's metrics on the same holdout days.
        verdict: What follows, and why.
    """

    uri: str
    candidate: CandidateRef
    metrics: dict[str, float]
    champion_version: int | None = None
    champion_metrics: dict[str, float] = {}
    verdict: Verdict


class PromotionRef(Ref):
    """What became of the challenger: the champion's registry version after the run, and why."""

    promoted: bool
    champion_version: int | None
    previous_version: int | None
    verdict: Verdict

    @property
    def sentence(self) -> str:
        """Return who is champion now."""
        if not self.champion_version:
            return "there is no champion yet"
        champion = f"version {self.champion_version}"
        if not self.promoted:
            return f"{champion} stays champion"
        before = (
            f"version {self.previous_version} was" if self.previous_version else "the first one"
        )
        return f"{champion} is champion; {before}"


class ScoresRef(Ref):
    """Predictions of one partition: a Parquet file with the rows' key columns and `prediction`."""

    uri: str
    rows: int
    model_version: int
    fingerprint: str


class MonitorRef(Ref):
    """Drift and live performance of the champion on the newest days.

    Attributes:
        live_metrics: Metrics of stored predictions whose labels have arrived; empty without labels.
        live_gates: The gates, held against the live metrics.
        retrain: True when drift or live performance asks for a new model.
    """

    uri: str
    drift: DriftVerdict
    live_metrics: dict[str, float]
    live_gates: tuple[GateResult, ...] = ()
    retrain: bool

    @property
    def reasons(self) -> list[DriftVerdict | GateResult]:
        """Return why a new model is asked for; empty where none is."""
        drift = [self.drift] if self.drift.exceeded else []
        return [*drift, *(gate for gate in self.live_gates if not gate.passed)]


class ReportRef(Ref):
    """The finished run: its HTML page, its MLflow page, and whether every stage ended well."""

    uri: str
    tracking_url: str
    succeeded: bool
    failed_stages: tuple[str, ...] = ()
