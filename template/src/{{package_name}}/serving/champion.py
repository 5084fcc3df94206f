"""The model that is served: loaded once, and replaced when the registry has another champion."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, computed_field

from ..core import registry, tracking
from ..core.errors import ChampionUnusable, NoChampion
from ..core.logs import get_logger
from ..core.redact import presentable
from ..core.stored_model import open_folder, require_unchanged
from ..interface import load_features
from ..stages.score import columns_of_today, predict_with
from .cache import Cache, Description, NotCached, key_of, registry_address
from .fast_path import Predict, predictor

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

log = get_logger(__name__)

# A version that could not be loaded is tried again after this time; another one at once.
RETRY_SECONDS = 60.0
# How long a start waits for the registry before it takes the last good model from the disk.
REGISTRY_SECONDS = 15.0


@dataclass(frozen=True)
class Champion:
    """A loaded model.

    Attributes:
        predict: Returns a prediction for each row, which may have more columns than are needed.
        loaded: Since when.
        source: Where it came from: registry, or cache while the registry could not be reached.
    """

    description: Description
    predict: Predict
    loaded: datetime
    source: str


class Check(BaseModel):
    """What the last look into the registry has shown.

    Attributes:
        checked: When the registry was last asked; None before the first time.
        answered: When it last answered.
        version: Which version was champion when it last answered; None without one.
        error: What was wrong, in a sentence.
    """

    model_config = ConfigDict(frozen=True)

    checked: datetime | None = None
    answered: datetime | None = None
    version: int | None = Field(default=None, exclude=True)
    error: str | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def reachable(self) -> bool:
        """Return whether the registry answered when it was last asked."""
        return self.checked is not None and self.checked == self.answered


class Follower:
    """Keeps the registry's champion loaded, and the last good one while the registry is away.

    Attributes:
        champion: What is served; a request takes it once and keeps it to its end.
        last: The last look into the registry.
        unusable: Why the champion cannot predict, where the code here is of another time.
    """

    def __init__(self, cache: Cache, refresh_seconds: float) -> None:
        self.champion: Champion | None = None
        self.last = Check()
        self.unusable: str | None = None
        self._cache = cache
        self._refresh_seconds = refresh_seconds
        self._stopped = threading.Event()
        self._first = threading.Event()
        self._swap = threading.Lock()
        # The key of what could not be loaded, until when it is left alone, and why.
        self._failed = ("", 0.0, "")
        # Until the registry has said that there is none.
        self._may_have_champion = True

    def start(self) -> None:
        """Load the champion in the background and follow it."""
        for work in (self._follow, self._fall_back):
            # Neither may keep the process alive: MLflow's client waits long for a dead server.
            threading.Thread(target=work, daemon=True, name=work.__name__.strip("_")).start()

    def stop(self) -> None:
        """Stop following; what is loaded stays."""
        self._stopped.set()

    def check(self) -> None:
        """Ask the registry once, and load its champion if it is another one; never raises."""
        now = datetime.now(UTC)
        answered: datetime | None = now
        version: int | None = None
        try:
            registered = registry.require_champion()
            version, error = int(registered.version), self._load(registered)
            if error and error == self.unusable:
                # It never will be served here: what it succeeds must not be either, if taken back.
                self._retire()
        except NoChampion as none:
            error, self._may_have_champion = str(none), False
            self._retire()
        except Exception as failure:
            answered, version = self.last.answered, self.last.version
            error = f"no answer: {_sentence(failure)}"
        if error and error != self.last.error:
            log.warning("%s", error)
        self.last = Check(checked=now, answered=answered, version=version, error=error)
        self._first.set()

    def _retire(self) -> None:
        """Stop serving what a person took back; a title that is only lost retires nothing."""
        with contextlib.suppress(Exception):
            known = self.champion.description if self.champion else self._cache.describe()
            if registry.is_withdrawn(known.version):
                self._cache.forget()
                with self._swap:
                    self.champion = None
                log.warning("version %d was retired: nothing is served", known.version)

    def _follow(self) -> None:
        while True:
            self.check()
            if self._stopped.wait(self._refresh_seconds):
                return

    def _fall_back(self) -> None:
        self._first.wait(REGISTRY_SECONDS)
        if self.champion is not None or not self._may_have_champion:
            return
        try:
            folder, description = self._cache.last_good()
            champion = self._open(folder, description, "cache")
        except NotCached as none:
            log.warning("%s", none)
        except Exception as failure:
            log.warning("the model on disk cannot be loaded: %s", _sentence(failure))
        else:
            with self._swap:
                if self.champion is None:
                    self.champion = champion
                    _settle()
                    log.info("serving version %d from disk for now", description.version)

    def _load(self, version: ModelVersion) -> str | None:
        """Load a version beside the present one and swap them; returns why not, in a sentence."""
        key = key_of(version)
        present = self.champion
        if present is not None and present.description.key == key:
            if present.source != "registry":
                self.champion = replace(present, source="registry")
            return None
        failed, until, error = self._failed
        if failed == key and time.monotonic() < until:
            return error
        try:
            description = _describe(version, key)
            folder = self._cache.fetch(version, key)
            require_unchanged(version, folder)
            champion = self._open(folder, description, "registry")
            self._cache.keep(description)
        except Exception as failure:
            error = f"version {version.version} cannot be loaded: {_sentence(failure)}"
            if isinstance(failure, ChampionUnusable):
                error = self.unusable = f"{failure}"
            self._failed = (key, time.monotonic() + RETRY_SECONDS, error)
            return error
        with self._swap:
            self.champion = champion
        _settle()
        log.info("serving version %d", description.version)
        return None

    def _open(self, folder: Path, description: Description, source: str) -> Champion:
        from mlflow.models import Model

        model = open_folder(folder, description.version, load_features().names)
        # One that does not fit the code of today must not replace a model that works.
        model.check(columns_of_today())

        example: Any = Model.load(str(folder)).load_input_example(str(folder))
        rows = None if example is None else pl.from_pandas(example[list(model.inputs)])
        of_inputs, now = predictor(model.estimator, rows), datetime.now(UTC)

        def predict(rows: pl.DataFrame) -> pl.DataFrame:
            return of_inputs(model.inputs_of(rows))

        if rows is not None:
            predict_with(model, rows)
            # The first call is slow.
            predict(rows)
        return Champion(description, predict, now, source)


def _describe(version: ModelVersion, key: str) -> Description:
    run_id = version.run_id
    run = tracking.client().get_run(run_id) if run_id else None
    return Description(
        key=key,
        registry=registry_address(),
        name=version.name,
        version=int(version.version),
        candidate=version.tags.get("candidate"),
        trained_until=version.tags.get("trained_until"),
        created=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
        run_url=tracking.run_url(run_id) if run_id else None,
        metrics=dict(run.data.metrics) if run else {},
    )


def _settle() -> None:
    """Keep the garbage collector from searching repeatedly through what stays.

    The libraries' objects take it a fifth of a second, during which no request is answered.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _sentence(error: BaseException) -> str:
    text = presentable(f"{type(error).__name__}: {error}").splitlines()[0]
    return text if len(text) <= 300 else text[:299] + "…"
