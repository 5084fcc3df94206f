"""Any estimator learns any target, and its model is loaded without this project."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import polars as pl
import pytest
from flight_delays import ml
from flight_delays.core.errors import BadInput
from flight_delays.ml import requirements
from flight_delays.ml.estimators import Labelled, dummy_like, fit
from flight_delays.ml.metrics import classification, thresholds
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier

RANDOM = np.random.default_rng(7)
MATRIX = RANDOM.normal(size=(300, 3))
NUMBER = pl.Series(MATRIX[:, 0])
# Codes are in the order of the names; the data is not.
WORDS = pl.Series(np.where(MATRIX[:, 0] > 0.3, "rain", np.where(MATRIX[:, 1] > 0, "sun", "fog")))


@pytest.mark.parametrize(
    "target",
    [WORDS, pl.Series([{"rain": 7, "sun": 30, "fog": -1}[word] for word in WORDS]), NUMBER > 0],
    ids=["words", "integers", "booleans"],
)
@pytest.mark.parametrize("kind", [XGBClassifier, LogisticRegression])
def test_a_classifier_learns_classes_of_any_type(kind: Any, target: pl.Series) -> None:
    model, _ = fit(kind(), MATRIX, target)

    predicted = classification.predict(model, MATRIX)

    assert predicted["prediction"].dtype == target.dtype
    assert classification.score(target, predicted)["accuracy"] > 0.9
    assert model.predict(MATRIX).tolist() == predicted["prediction"].to_list()


def test_a_regressor_stays_as_it_is() -> None:
    estimator = Ridge()

    model, found = fit(estimator, MATRIX, NUMBER)

    assert model is estimator
    assert found == {}


def test_the_hook_gets_codes_and_the_validation_part_and_stops_early() -> None:
    given: list[Any] = []

    def hook(estimator: Any, matrix: Any, target: Any, validation: Any) -> dict[str, Any]:
        given.append((target, *validation))
        estimator.set_params(early_stopping_rounds=2)
        estimator.fit(matrix, target, eval_set=[validation], verbose=False)
        return {"n_estimators": estimator.best_iteration + 1}

    late = MATRIX[:3], pl.Series(["rain", "hail", "fog"])
    model, found = fit(XGBClassifier(n_estimators=500), MATRIX, WORDS, late, hook)

    target, rows, late_target = given[0]
    assert set(target) == {0, 1, 2}
    assert late_target.tolist() == [1, 0], "fog is 0, rain 1; hail was never learned"
    assert np.array_equal(rows, MATRIX[[0, 2]])
    assert 0 < found["n_estimators"] < 500
    assert set(model.predict(MATRIX)) == {"fog", "rain", "sun"}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (thresholds.fixed(0.3), 0.3),
        (thresholds.best_f_beta(1), 0.6),
        (thresholds.best_f_beta(10), 0.2),
        (thresholds.least_cost(false_alarm=1, miss=1), 0.6),
        (thresholds.least_cost(false_alarm=1, miss=10), 0.2),
        (thresholds.least_cost(false_alarm=100, miss=1), 0.9),
    ],
)
def test_a_threshold_follows_its_rule(rule: thresholds.Rule, expected: float) -> None:
    truth = np.array([True, False, True, True, False, False])
    probability = np.array([0.9, 0.8, 0.7, 0.6, 0.1, 0.15])
    truth, probability = np.append(truth, [True]), np.append(probability, [0.2])
    truth, probability = np.append(truth, [False] * 2), np.append(probability, [0.3, 0.4])

    assert rule(truth, probability) == pytest.approx(expected)


def test_a_model_obeys_its_threshold() -> None:
    late = pl.Series(np.where(NUMBER > 0.5, "yes", "no"))
    model, _ = fit(LogisticRegression(), MATRIX, late)
    probability = model.predict_proba(MATRIX)[:, 1]
    model.threshold = 0.05

    for found in (model.predict(MATRIX), classification.predict(model, MATRIX)["prediction"]):
        assert (np.asarray(found) == "yes").tolist() == (probability >= 0.05).tolist()
    piped = make_pipeline("passthrough", model)
    assert classification.predict(piped, MATRIX).equals(classification.predict(model, MATRIX))


def test_a_dummy_knows_the_target_alone() -> None:
    classes = dummy_like(Labelled(LogisticRegression()).fit(MATRIX, WORDS.to_numpy()), WORDS)
    numbers = dummy_like(Ridge(), NUMBER)

    assert classes.predict_proba(MATRIX[:1]).sum() == pytest.approx(1)
    assert set(classes.classes_) == set(WORDS)
    assert numbers.predict(MATRIX[:1]) == pytest.approx(NUMBER.mean())


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Return a package of a team's, with an estimator of its own."""
    (tmp_path / "a_team.py").write_text(
        "import numpy as np\nimport xgboost\n"
        "from sklearn.base import BaseEstimator, RegressorMixin\n"
        "class Mean(RegressorMixin, BaseEstimator):\n"
        "    def fit(self, matrix, target): self.mean_ = np.mean(target); return self\n"
        "    def predict(self, matrix): return np.full(len(matrix), self.mean_)\n"
        "    def other(self): return xgboost.__version__\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import a_team  # type: ignore[import-not-found] # noqa: PLC0415

    return a_team  # type: ignore[no-any-return]


def test_requirements_are_those_of_what_a_model_is_made_of(team: types.ModuleType) -> None:
    def names(model: Any) -> set[str]:
        return {line.partition("==")[0] for line in requirements.requirements_of(model)}

    requirements.carry(team, ml)
    always = {"cloudpickle", "numpy", "pandas", "scikit-learn"}
    linear, _ = fit(LogisticRegression(), MATRIX, WORDS)
    trees, _ = fit(XGBClassifier(n_estimators=2), MATRIX, WORDS)
    own, _ = fit(team.Mean(), MATRIX, NUMBER)

    assert names(make_pipeline(StandardScaler(), linear)) == always
    assert names(make_pipeline(StandardScaler(), trees)) == always | {"xgboost-cpu"}
    assert "xgboost-cpu" in names(make_pipeline(StandardScaler(), own)), "imported by its code"


def test_what_a_model_cannot_take_along_is_named() -> None:
    model = make_pipeline(StandardScaler()).set_params(steps=[("a", BadInput("x"))])

    with pytest.raises(BadInput, match=r"flight_delays\.core\.errors.*into domain/"):
        requirements.requirements_of(model)


def test_what_a_library_pickles_apart_is_named(team: types.ModuleType) -> None:
    requirements.carry(team, ml)

    with pytest.raises(BadInput, match=r"from a_team apart.*__getstate__"):
        requirements.requirements_of([b"\x80", pickle.dumps([NUMBER, team.Mean()])])
    assert requirements.requirements_of([b"\x80abc", pickle.dumps(LogisticRegression())])


def test_a_model_is_loaded_without_the_project(team: types.ModuleType, tmp_path: Path) -> None:
    requirements.carry(team, ml)
    for name, last in {
        "words": fit(XGBClassifier(n_estimators=5), MATRIX, WORDS)[0],
        "own": fit(team.Mean(), MATRIX, NUMBER)[0],
    }.items():
        model = make_pipeline(StandardScaler().fit(MATRIX), last)
        (tmp_path / f"{name}.pkl").write_bytes(cloudpickle.dumps(model))
    code = (
        "import pickle, sys, numpy as np\n"
        "sys.modules['flight_delays'] = sys.modules['a_team'] = None\n"
        "for name in ('words', 'own'):\n"
        "    model = pickle.load(open(f'{name}.pkl', 'rb'))\n"
        "    print(model.predict(np.ones((1, 3)))[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stderr == ""
    word, mean = done.stdout.split()
    assert word == "rain"
    assert float(mean) == pytest.approx(NUMBER.mean())
