"""Metrics of regression, against values computed by hand."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import polars as pl
import pytest
from flight_delays.ml.metrics import (
    regression as metrics,
)
from sklearn.dummy import DummyRegressor


def score(target: list[float], prediction: list[float]) -> dict[str, float]:
    return metrics.score(pl.Series(target), pl.DataFrame({"prediction": prediction}))


def test_score_equals_the_values_computed_by_hand() -> None:
    found = score([0, 2, 4, 10], [1, 2, 2, 12])

    assert found == pytest.approx(
        {
            "mae": (1 + 0 + 2 + 2) / 4,
            "rmse": ((1 + 0 + 4 + 4) / 4) ** 0.5,
            "median_ae": (1 + 2) / 2,
            "r2": 1 - (1 + 0 + 4 + 4) / (16 + 4 + 0 + 36),
        }
    )
    assert metrics.PRIMARY in found


def test_a_better_prediction_has_a_better_primary_metric() -> None:
    good = score([0, 2, 4], [0, 2, 5])[metrics.PRIMARY]
    poor = score([0, 2, 4], [4, 2, 0])[metrics.PRIMARY]

    assert (good > poor) is metrics.GREATER_IS_BETTER


@pytest.mark.parametrize("target", [[3, 3, 3], [3], []])
def test_a_target_that_never_varies_is_refused(target: list[float]) -> None:
    for measure in (metrics.score, metrics.plots):
        with pytest.raises(ValueError, match="two different target values"):
            measure(pl.Series(target), pl.DataFrame({"prediction": target}))


def test_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="2 targets for 3 predictions"):
        score([0, 1], [1, 2, 3])


def test_predict_returns_one_number_a_row() -> None:
    model = DummyRegressor().fit(np.zeros((4, 1)), np.array([[1], [2], [3], [6]], np.float32))

    found = metrics.predict(model, np.zeros((3, 1)))

    assert found.to_dict(as_series=False) == {"prediction": [3.0, 3.0, 3.0]}


def test_plots_are_small_and_the_same_each_time() -> None:
    random = np.random.default_rng(0)
    target = pl.Series(random.gamma(1, 30, 50_000) - 15)
    prediction = pl.DataFrame({"prediction": target / 3 + random.normal(0, 10, 50_000)})

    plots = metrics.plots(target, prediction)

    assert list(plots) == ["Predicted and actual", "Residuals"]
    assert plots == metrics.plots(target, prediction)
    for svg in plots.values():
        assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
        assert len(svg) < 60_000


def test_a_perfect_prediction_can_be_drawn() -> None:
    assert len(metrics.plots(pl.Series([1, 2]), pl.DataFrame({"prediction": [1, 2]}))) == 2
