"""What tells one trained model from another: what it predicts, not how it is printed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sandbox
from flight_delays.core.refs import CandidateRef
from flight_delays.interface import load_problem
from flight_delays.stages.featurize import featurize
from flight_delays.stages.ingest import ingest
from flight_delays.stages.start import start
from flight_delays.stages.train import train
from flight_delays.stages.validate import validate
from sklearn.ensemble import HistGradientBoostingClassifier
from xgboost import XGBClassifier

Builder = Callable[[Any, int], Any]


def boosted(subsample: float) -> Builder:
    """Return a builder whose models are printed alike: scikit-learn cuts so long a text."""
    return lambda trial, seed: XGBClassifier(
        n_estimators=5, subsample=subsample, random_state=seed, n_jobs=1
    )


def other_code(trial: Any, seed: int) -> Any:
    """Build a model of a class that only looks like another one."""

    class XGBClassifier(HistGradientBoostingClassifier):  # type: ignore[misc]
        def __repr__(self, **_: Any) -> str:
            return repr(boosted(0.8)(trial, seed))

    return XGBClassifier(max_iter=5, random_state=seed)


@pytest.fixture
def fingerprint(small: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Builder], str]:
    """Return a function that trains what a builder builds, always on the same rows."""
    run = start("training", sandbox.PARTITION)
    features = featurize(run, validate(run, ingest(run)))

    def of(build: Builder) -> str:
        problem = load_problem().model_copy(update={"candidates": {"one": build}})
        monkeypatch.setattr("flight_delays.stages.train.load_problem", lambda: problem)
        return CandidateRef.model_validate(train(run, features, "one")).fingerprint

    return of


def test_the_same_model_has_the_same_fingerprint(fingerprint: Callable[[Builder], str]) -> None:
    assert fingerprint(boosted(0.8)) == fingerprint(boosted(0.8))


@pytest.mark.parametrize("other", [boosted(0.05), other_code], ids=["argument", "code"])
def test_a_model_that_is_only_printed_alike_is_another_one(
    fingerprint: Callable[[Builder], str], other: Builder
) -> None:
    assert repr(other(None, 1))[:300] == repr(boosted(0.8)(None, 1))[:300]
    assert fingerprint(other) != fingerprint(boosted(0.8))
