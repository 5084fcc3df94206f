"""Metrics of classification, against values computed by hand."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from flight_delays.ml.metrics import (
    classification as metrics,
)
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier


def test_score_equals_the_values_computed_by_hand() -> None:
    found = metrics.score([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])

    assert found == pytest.approx(
        {
            "roc_auc": 3 / 4,  # of four pairs only (0.4, 0.35) is in the wrong order
            "average_precision": (1 / 1 + 2 / 3) / 2,
            "brier": (0.1**2 + 0.4**2 + 0.65**2 + 0.2**2) / 4,
            "log_loss": -math.log(0.9 * 0.6 * 0.35 * 0.8) / 4,
            "accuracy": 3 / 4,
        }
    )
    assert metrics.PRIMARY in found


def test_a_better_prediction_has_a_better_primary_metric() -> None:
    good = metrics.score([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])[metrics.PRIMARY]
    poor = metrics.score([0, 0, 1, 1], [0.9, 0.2, 0.8, 0.1])[metrics.PRIMARY]

    assert (good > poor) is metrics.GREATER_IS_BETTER


@pytest.mark.parametrize("target", [[1, 1], [0, 0], [0, 2], []])
def test_a_target_without_both_classes_is_refused(target: list[int]) -> None:
    prediction = [0.5] * len(target)

    for measure in (metrics.score, metrics.plots):
        with pytest.raises(ValueError, match="both classes"):
            measure(target, prediction)


def test_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="2 targets for 3 predictions"):
        metrics.score([0, 1], [0.1, 0.2, 0.3])


def test_predict_returns_the_probability_of_class_one() -> None:
    model = DummyClassifier(strategy="prior").fit(np.zeros((4, 1)), [0, 0, 0, 1])

    found = metrics.predict(model, np.zeros((3, 1)))

    assert found.tolist() == [0.25, 0.25, 0.25]
    assert found.dtype == np.float64


def test_a_model_that_knows_one_class_is_refused() -> None:
    model = DummyClassifier(strategy="prior").fit(np.zeros((4, 1)), [0, 0, 0, 0])

    with pytest.raises(ValueError, match="must hold both"):
        metrics.predict(model, np.zeros((3, 1)))


def test_plots_are_small_and_the_same_each_time() -> None:
    target, prediction = rows(50_000)

    plots = metrics.plots(target, prediction)

    assert list(plots) == ["ROC curve", "Precision and recall", "Calibration"]
    assert plots == metrics.plots(target, prediction)
    for svg in plots.values():
        assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
        assert len(svg) < 60_000


def test_plots_of_two_rows_can_be_drawn() -> None:
    assert len(metrics.plots([0, 1], [0.5, 0.5])) == 3


def rows(count: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    random = np.random.default_rng(0)
    prediction = random.random(count)
    return (random.random(count) < prediction).astype(np.int64), prediction
