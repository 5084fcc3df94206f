"""The small typed references that travel between stages.

Data never travels through the orchestrator: a stage writes files and returns a reference to them.
Every reference is frozen and survives a round trip through JSON, so any engine can carry it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from .cadence import Partition
from .outcomes import DriftVerdict, GateResult, Stored, Verdict, Violation, Window
from .settings import Settings, load_settings

Pipeline = Literal["training", "inference"]


class Ref(BaseModel):
    """Base of all references: immutable, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Run(Ref):
    """One run of a pipeline for one partition.

    Attributes:
        pipeline: Which graph runs.
        partition: The partition this run is about; the newest one of its window.
        key: Unique name of the run, from the engine where there is one.
        tracking_run_id: The parent MLflow run; every stage gets it from here.
        settings: The run's settings. They do not travel: they may hold secrets, and each process
            reads its own.
    """

    pipeline: Pipeline
    partition: Partition
    key: str
    tracking_run_id: str
    settings: Settings = Field(default_factory=load_settings, exclude=True, repr=False)


class PartitionFile(Ref):
    """One partition of a dataset: a file, its row count and the fingerprint of its content."""

    partition: Partition
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
        left_out: Why earlier partitions of the window are not in it.
        warnings: What is odd about the run's own partition.
    """

    uri: str
    rows: int
    fingerprint: str
    validated: bool = False
    window: Window = "normal"
    metrics: dict[str, float] = {}
    left_out: tuple[Violation, ...] = ()
    warnings: tuple[Violation, ...] = ()


class FeaturesRef(Ref):
    """Features and target of a window of partitions.

    Attributes:
        uri: Address of the manifest, see `storage.read_manifest`; for training, of the rows to
            learn from.
        holdout_uri: Address of the manifest of the held-out rows; None for inference.
        reference_uri: A sample of the learned rows' features and target: drift is measured
            against it, and the baseline learns from it.
        holdout_from: The first partition with held-out rows; None for inference.
        rows: Rows of all partitions.
        holdout_rows: Those that are held out.
        dataset_fingerprint: Fingerprint of the validated dataset the features come from.
    """

    uri: str
    holdout_uri: str | None = None
    rows: int
    holdout_rows: int = 0
    fingerprint: str
    dataset_fingerprint: str
    reference_uri: str | None = None
    holdout_from: Partition | None = None
    window: Window = "normal"


class CandidateRef(Ref):
    """One trained model.

    Attributes:
        tracking_run_id: The candidate's own MLflow run, a child of the pipeline's run.
        model_uri: Address of the logged model, as MLflow loads it.
        score: Primary metric on the learned rows that validate; compares candidates.
        fingerprint: Of everything the model depends on; equal fingerprints mean equal models.
        features_fingerprint: Of the features it learned from and was evaluated on.
        trained_until: The newest partition the model has seen.
        reference_uri: See `FeaturesRef`; kept with the model for its lifetime.
        digest: Of the stored model that was evaluated, see `registry.digest_of`.
    """

    candidate: str
    tracking_run_id: str
    model_uri: str
    score: float
    params: dict[str, float | int | str | bool | None]
    fingerprint: str
    features_fingerprint: str = ""
    trained_until: Partition
    reference_uri: str
    window: Window = "normal"
    digest: str = ""


class EvaluationRef(Ref):
    """A challenger's metrics on held-out rows, beside the champion's, and what follows.

    Attributes:
        uri: Folder with `predictions.parquet` (target and predictions), `importance.json` and
            `drift.json` for the report.
        features: What it was evaluated on, in case the champion changes before promote;
            None where older code evaluated.
        baseline_metrics: On the same rows, those of a model that has learned the target alone.
        champion_version: Registry version of the champion, None where there is none yet.
        champion_metrics: The champion's metrics on the same rows.
        verdict: What follows, and why.
    """

    uri: str
    features: FeaturesRef | None = None
    candidate: CandidateRef
    metrics: dict[str, float]
    baseline_metrics: dict[str, float] = {}
    champion_version: int | None = None
    champion_metrics: dict[str, float] = {}
    verdict: Verdict


class PromotionRef(Ref):
    """What became of the challenger: the champion's registry version after the run, and why."""

    promoted: bool
    champion_version: int | None = None
    previous_version: int | None = None
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
    """Predictions of one partition: a Parquet file, with the rows' key columns beside them."""

    uri: str
    rows: int
    model_version: int
    fingerprint: str


class MonitorRef(Ref):
    """Drift and live performance of the champion on the newest partitions.

    Attributes:
        live_metrics: Metrics of stored predictions whose labels have arrived, of rows that the
            model had not learned from; empty without any.
        live_gates: The gates, checked against the live metrics.
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


class StepRef(Ref):
    """What one of the team's own steps returned, as JSON; empty if it returned nothing."""

    result: dict[str, JsonValue] = {}


class ReportRef(Ref):
    """The finished run: its HTML page, its MLflow page, and whether every stage ended well."""

    uri: str
    tracking_url: str
    succeeded: bool
    failed_stages: tuple[str, ...] = ()
