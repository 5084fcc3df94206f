"""The event that an alert reports, whichever channel carries it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ..core import tracking
from ..core.errors import DataRejected, SettingsError, in_one_line
from ..core.redact import presentable
from ..core.refs import MonitorRef, PromotionRef, Run
from ..core.settings import load_settings

Kind = Literal[
    "failure",
    "data_rejected",
    "champion_changed",
    "champion_breaks_gate",
    "champion_unusable",
    "drift",
    "test",
]

_TITLES: dict[Kind, str] = {
    "failure": "Failed",
    "data_rejected": "Data rejected",
    "champion_changed": "New champion",
    "champion_breaks_gate": "The champion breaks a gate",
    "champion_unusable": "The champion cannot predict",
    "drift": "Drift",
    "test": "Test alert",
}


def _presentable(value: Any) -> Any:
    return None if value is None else presentable(f"{value}")


Text = Annotated[str, BeforeValidator(_presentable)]


def _project_name() -> str:
    try:
        return load_settings().project.name or "pipeline"
    except SettingsError:
        # Bad settings are themselves worth an alert.
        return "pipeline"


class Event(BaseModel):
    """Something that people should know; its texts are fit to be shown.

    Attributes:
        summary: One sentence.
        pipeline: The DAG, job or flow.
        stage: The task.
        error: Type and message of the exception.
        try_number: Which attempt it was, from 1.
        log_url: The task's log in the engine's UI.
        tracking_url: The run in MLflow.
        details: Anything else, as label and value.
        time: When it happened.
        times: How many events it stands for, see `of_many`.
        late: Whether it could not be sent when it happened.
        only_to: The recipients who have not got it, where others have; everybody when empty.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    summary: Text
    project: Text = Field(default_factory=_project_name)
    pipeline: Text | None = None
    stage: Text | None = None
    partition: Text | None = None
    run_key: Text | None = None
    error: Text | None = None
    try_number: int | None = None
    log_url: Text | None = None
    tracking_url: Text | None = None
    details: dict[Text, Text] = {}
    time: datetime = Field(default_factory=lambda: datetime.now(UTC))
    times: int = 1
    late: bool = False
    only_to: tuple[str, ...] = ()

    @classmethod
    def of_failure(
        cls,
        error: BaseException | str | None,
        *,
        pipeline: str | None = None,
        stage: str | None = None,
        partition: str | None = None,
        **known: Any,
    ) -> Event:
        """Return the event for a failed stage; engines that lost the exception may pass its text.

        A `DataRejected`, also as the cause of an engine's own exception, becomes `data_rejected`.
        `known` are other fields of the event.
        """
        rejected = _find_rejection(error)
        error = rejected or error
        if isinstance(error, BaseException):
            error = in_one_line(error)
        known |= {"pipeline": pipeline, "stage": stage, "partition": partition, "error": error}
        if rejected:
            summary = f"Partition {rejected.partition} was rejected, and the run ended there."
            details = {"Report": rejected.report_uri}
            return cls(kind="data_rejected", summary=summary, details=details, **known)
        which = f" for partition {partition}" if partition else ""
        where = f"{pipeline or 'The pipeline'} failed in {stage or 'an unknown stage'}"
        return cls(kind="failure", summary=f"{where}{which}.", **known)

    @classmethod
    def of_new_champion(
        cls,
        run: Run,
        promotion: PromotionRef,
        *,
        candidate: str,
        metrics: Mapping[str, float],
        repeated: bool,
    ) -> Event:
        """Return the event for a challenger that has become champion.

        `repeated` says that a run which was killed may have announced it before.
        """
        notes = [one.sentence for one in promotion.verdict.notes if one.misfit]
        again = ["perhaps told before: a run ended before it could note so"] if repeated else []
        return cls(
            kind="champion_changed",
            stage="promote",
            summary="; ".join([f"{candidate}: {promotion.sentence}", *notes, *again]),
            details={metric: f"{value:.4f}" for metric, value in metrics.items()},
            **of_run(run),
        )

    @classmethod
    def of_failing_champion(cls, run: Run, promotion: PromotionRef) -> Event:
        """Return the event for a champion that fails, and that no challenger succeeds."""
        unusable = any(one.misfit for one in promotion.verdict.notes)
        notes = [one.sentence for one in promotion.verdict.notes if one.gate or one.misfit]
        return cls(
            kind="champion_unusable" if unusable else "champion_breaks_gate",
            stage="promote",
            summary="; ".join([promotion.sentence, *notes]),
            **of_run(run),
        )

    @classmethod
    def of_drift(cls, run: Run, monitoring: MonitorRef, psi: Mapping[str, float]) -> Event:
        """Return the event for drift, or a loss of performance, that asks for a new model.

        `psi` holds the population stability index of every feature that drifted.
        """
        return cls(
            kind="drift",
            stage="monitor",
            summary="; ".join(f"{reason}" for reason in monitoring.reasons),
            details={feature: f"PSI {value:.2f}" for feature, value in psi.items()},
            **of_run(run),
        )

    @classmethod
    def test(cls) -> Event:
        """Return the event that proves a channel works."""
        return cls(kind="test", summary="A test: alerts of this project arrive here.")

    @classmethod
    def of_many(cls, events: Sequence[Event]) -> Event:
        """Return one event that says what several of the same `group` say, each thing once."""
        first, *others = events
        if not others:
            return first

        def told(values: Iterable[str | None], between: str = ", ") -> str | None:
            return between.join(dict.fromkeys(filter(None, values))) or None

        labels = dict.fromkeys(label for one in events for label in one.details)
        details = {label: told(one.details.get(label) for one in events) or "" for label in labels}
        changes = {
            "times": sum(one.times for one in events),
            "summary": told((one.summary for one in events), "\n"),
            "partition": told(one.partition for one in events),
            "run_key": told(one.run_key for one in events),
            "error": told((one.error for one in events), "\n"),
            "details": details,
            "late": any(one.late for one in events),
        }
        return cls.model_validate(dict(first) | changes)

    @property
    def group(self) -> tuple[object, ...]:
        """What events that may be sent as one have in common: their cause, as far as is known."""
        error = (self.error or "").partition(":")[0]
        return self.kind, self.pipeline, self.stage, error, self.only_to

    @property
    def title(self) -> str:
        """The event in one line."""
        partition = self.partition if self.times == 1 else f"{self.times} times"
        where = " / ".join(part for part in (self.pipeline, self.stage, partition) if part)
        title = f"{_TITLES[self.kind]}: {self.project}" + (f" - {where}" if where else "")
        return " ".join((title + (" (late)" if self.late else "")).split())

    @property
    def facts(self) -> dict[str, str]:
        """What is known, as label and value, in the order in which people read it."""
        known = {
            "Project": self.project,
            "Pipeline": self.pipeline,
            "Stage": self.stage,
            "Partition": self.partition,
            "Try": self.try_number,
            "Run": self.run_key,
            **self.details,
            "Told late": f"it happened at {self.time:%Y-%m-%d %H:%M} UTC" if self.late else None,
        }
        return {label: f"{value}" for label, value in known.items() if value}

    @property
    def links(self) -> dict[str, str]:
        """Where to read more: label and web address."""
        addresses = {"Log": self.log_url, "MLflow run": self.tracking_url}
        return {
            label: address
            for label, address in addresses.items()
            if address and address.startswith(("http://", "https://"))
        }


def _find_rejection(error: BaseException | str | None) -> DataRejected | None:
    while isinstance(error, BaseException):
        if isinstance(error, DataRejected):
            return error
        error = error.__cause__
    return None


def of_run(run: Run) -> dict[str, Any]:
    """Return the fields of an event that say which run it is about."""
    return {
        "pipeline": run.pipeline,
        "partition": run.partition,
        "run_key": run.key,
        "tracking_url": run_url(run.tracking_run_id),
    }


def run_url(tracking_run_id: str | None) -> str | None:
    """Return a run's page in MLflow, or None where its address is not known."""
    # MLflow may be what failed.
    with contextlib.suppress(Exception):
        return tracking.run_url(tracking_run_id) if tracking_run_id else None
    return None
