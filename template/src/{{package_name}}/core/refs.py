"""The small typed references that travel between stages.

Data never travels through the orchestrator: a stage writes files and returns a reference to them.
Every reference is frozen and survives a round trip through JSON, so any engine can carry it.
"""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import BaseModel, ConfigDict

Pipeline = Literal["training", "inference"]
Decision = Literal["promote", "retrain", "keep"]


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
    """

    pipeline: Pipeline
    partition: date
    key: str
    tracking_run_id: str


class PartitionFile(Ref):
    """One day of a dataset: a file, its row count and the fingerprint of its content."""

    partition: date
    uri: str
    rows: int
    fingerprint: str


class DatasetRef(Ref):
    """Rows of a window of partitions, listed file by file in the manifest at `uri`.

    Attributes:
        uri: Address of the manifest, see `storage.read_manifest`.
        validated: True only for what the validate stage let through.
        attempt: 1 for the normal window, 2 for the wider one of a retraining.
    """

    uri: str
    rows: int
    fingerprint: str
    validated: bool = False
    attempt: int = 1
    metrics: dict[str, float] = {}


class FeaturesRef(Ref):
    """Features and target of a window of partitions, one file a day.

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
    attempt: int = 1


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
    attempt: int = 1


class EvaluationRef(Ref):
    """A challenger's metrics on the holdout days, beside the champion's, and what follows.

    Attributes:
        uri: Folder with `predictions.parquet` (target, prediction), `importance.json` and
            `drift.json` for the report.
        champion_version: Registry version of the champion, None where there is none yet.
        champion_metrics: The champion's metrics on the same holdout days.
        reasons: Why `decision` was taken, one sentence a gate.
    """

    uri: str
    candidate: CandidateRef
    metrics: dict[str, float]
    champion_version: int | None = None
    champion_metrics: dict[str, float] = {}
    decision: Decision
    reasons: tuple[str, ...]


class PromotionRef(Ref):
    """What became of the challenger: the champion's registry version after the run, and why."""

    promoted: bool
    champion_version: int | None
    previous_version: int | None
    reasons: tuple[str, ...]


class ScoresRef(Ref):
    """Predictions of one partition: a Parquet file with the rows' key columns and `prediction`."""

    uri: str
    rows: int
    model_version: int
    fingerprint: str


class MonitorRef(Ref):
    """Drift and live performance of the champion on the newest days.

    Attributes:
        drifted: Stable features whose distribution moved beyond the limit, worst first.
        live_metrics: Metrics of stored predictions whose labels have arrived; empty without labels.
        retrain: True when drift or live performance asks for a new model.
    """

    uri: str
    drifted: tuple[str, ...]
    live_metrics: dict[str, float]
    retrain: bool
    reasons: tuple[str, ...]


class ReportRef(Ref):
    """The finished run: its HTML page, its MLflow page, and whether every stage ended well."""

    uri: str
    tracking_url: str
    succeeded: bool
    failed_stages: tuple[str, ...] = ()
