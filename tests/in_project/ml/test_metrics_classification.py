"""Metrics of classification, against values computed by hand."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import polars as pl
import pytest
from flight_delays.ml.metrics import (
    classification as metrics,
)
from flight_delays.ml.metrics.own import OwnMetric
from sklearn.dummy import DummyClassifier

TWO = ["0", "1"]
THREE = ["ape", "bee", "cat"]


def predicted(probability: Any, names: list[str] = TWO) -> pl.DataFrame:
    """Return a prediction: that of the last of two classes, or of all of them."""
    table = np.array(probability, dtype=np.float64).reshape(-1, 1 if names == TWO else len(names))
    if names == TWO:
        table = np.hstack([1 - table, table])
    chosen = [names[number] for number in table.argmax(axis=1)]
    columns = {f"probability_{name}": table[:, n] for n, name in enumerate(names)}
    return pl.DataFrame({"prediction": chosen, **columns})


def test_score_equals_the_values_computed_by_hand() -> None:
    found = metrics.score(pl.Series([0, 0, 1, 1]), predicted([0.1, 0.4, 0.35, 0.8]))

    assert found == pytest.approx(
        {
            "roc_auc": 3 / 4,  # of four pairs only (0.4, 0.35) is in the wrong order
            "average_precision": (1 / 1 + 2 / 3) / 2,
            "brier": (0.1**2 + 0.4**2 + 0.65**2 + 0.2**2) / 4,
            "log_loss": -math.log(0.9 * 0.6 * 0.35 * 0.8) / 4,
            "accuracy": 3 / 4,
            "balanced_accuracy": (1 + 1 / 2) / 2,
            "f1": 2 * 1 * 0.5 / 1.5,
        }
    )
    assert metrics.PRIMARY in found


def test_score_of_three_classes_equals_the_values_computed_by_hand() -> None:
    truth = pl.Series(["ape", "ape", "bee", "cat"])
    given = [[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.2, 0.7, 0.1], [0.4, 0.1, 0.5]]

    found = metrics.score(truth, predicted(given, THREE))

    # Of the pairs of an ape and another animal, (0.3, 0.4) is in the wrong order.
    assert found == pytest.approx(
        {
            "roc_auc": (3 / 4 + 1 + 1) / 3,
            "roc_auc_weighted": (2 * 3 / 4 + 1 + 1) / 4,
            "average_precision": ((1 / 2) * 1 + (1 / 2) * (2 / 3) + 1 + 1) / 3,
            "brier": (0.14 + 0.86 + 0.14 + 0.42) / 4 / 2,
            "log_loss": -math.log(0.7 * 0.3 * 0.7 * 0.5) / 4,
            "accuracy": 3 / 4,
            "balanced_accuracy": (1 / 2 + 1 + 1) / 3,
            "f1": (2 / 3 + 2 / 3 + 1) / 3,
            "f1_weighted": (2 * 2 / 3 + 2 / 3 + 1) / 4,
        }
    )


def test_a_class_that_the_model_never_saw_counts_against_it() -> None:
    known, unseen = pl.Series(["ape", "bee", "bee"]), pl.Series(["ape", "bee", "cow"])
    given = predicted([[0.9, 0.1], [0.2, 0.8], [0.2, 0.8]], ["ape", "bee"])

    assert metrics.score(known, given)["accuracy"] == 1
    found = metrics.score(unseen, given)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert all(math.isfinite(value) for value in found.values())


def test_classes_that_did_not_come_true_are_left_out() -> None:
    given = predicted([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]], THREE)

    assert metrics.score(pl.Series(["ape", "bee"]), given)["roc_auc"] == 1


@pytest.mark.parametrize(
    ("classes", "names"),
    [([3, 7], ["3", "7"]), ([False, True], ["false", "true"]), (["b", "a"], ["a", "b"])],
)
def test_classes_may_be_of_any_type(classes: list[Any], names: list[str]) -> None:
    model = DummyClassifier(strategy="prior").fit(np.zeros((4, 1)), [*classes, *classes])

    found = metrics.predict(model, np.zeros((2, 1)))

    assert found.columns == ["prediction", *(f"probability_{name}" for name in names)]
    assert found["prediction"].dtype == pl.Series(classes).dtype
    assert metrics.score(pl.Series(classes), found)["brier"] == pytest.approx(0.25)


def test_a_better_prediction_has_a_better_primary_metric() -> None:
    truth = pl.Series([0, 0, 1, 1])
    good = metrics.score(truth, predicted([0.1, 0.2, 0.8, 0.9]))[metrics.PRIMARY]
    poor = metrics.score(truth, predicted([0.9, 0.2, 0.8, 0.1]))[metrics.PRIMARY]

    assert (good > poor) is metrics.GREATER_IS_BETTER


@pytest.mark.parametrize("target", [[1, 1], [0, 0], []])
def test_a_target_of_one_class_is_refused(target: list[int]) -> None:
    prediction = predicted([0.5] * len(target))

    for measure in (metrics.score, metrics.plots):
        with pytest.raises(ValueError, match="two classes or more"):
            measure(pl.Series(target), prediction)


def test_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="2 targets for 3 predictions"):
        metrics.score(pl.Series([0, 1]), predicted([0.1, 0.2, 0.3]))


def test_predict_returns_the_class_and_the_probability_of_each() -> None:
    model = DummyClassifier(strategy="prior").fit(np.zeros((4, 1)), [0, 0, 0, 1])

    found = metrics.predict(model, np.zeros((2, 1)))

    assert found.to_dict(as_series=False) == {
        "prediction": [0, 0],
        "probability_0": [0.75, 0.75],
        "probability_1": [0.25, 0.25],
    }


def test_a_model_that_knows_one_class_is_refused() -> None:
    model = DummyClassifier(strategy="prior").fit(np.zeros((4, 1)), [0, 0, 0, 0])

    with pytest.raises(ValueError, match="must hold two or more"):
        metrics.predict(model, np.zeros((3, 1)))


def test_a_model_without_probabilities_is_refused() -> None:
    with pytest.raises(ValueError, match="needs predict_proba"):
        metrics.predict(object(), np.zeros((3, 1)))


@pytest.mark.parametrize("names", [TWO, THREE])
def test_plots_are_small_and_the_same_each_time(names: list[str]) -> None:
    target, prediction = rows(50_000, names)

    plots = metrics.plots(target, prediction)

    assert list(plots) == [
        *("ROC curve", "Precision and recall", "Calibration", "Confusion matrix"),
        "Classes",
    ]
    assert plots == metrics.plots(target, prediction)
    table = plots.pop("Classes")
    assert ET.fromstring(table).tag == "table"
    for svg in plots.values():
        assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
        assert len(svg) < 90_000


def test_the_table_has_precision_recall_and_rows_of_each_class() -> None:
    hostile = "<b>$x_{$"
    truth = pl.Series([hostile, hostile, "bee", "bee"])
    given = predicted([[0.9, 0.1], [0.2, 0.8], [0.1, 0.9], [0.3, 0.7]], [hostile, "bee"])

    plots = metrics.plots(truth, given)

    lines = re.findall(r"<tr><td>(.*?)</tr>", plots["Classes"])
    cells = [re.sub("<.*?>", " ", line).split() for line in lines]
    assert cells == [
        ["&lt;b&gt;$x_{$", "1.000", "0.500", "0.667", "2"],
        ["bee", "0.667", "1.000", "0.800", "2"],
    ]


def test_plots_of_two_rows_can_be_drawn() -> None:
    assert len(metrics.plots(pl.Series([0, 1]), predicted([0.5, 0.5]))) == 5


def test_a_metric_of_the_teams_own_compares_models() -> None:
    def hits(target: pl.Series, prediction: pl.DataFrame) -> float:
        return float((target.cast(str) == prediction["prediction"]).sum())

    own = OwnMetric(metrics, hits, GREATER_IS_BETTER=True)

    found = own.score(pl.Series([0, 0, 1, 1]), predicted([0.1, 0.4, 0.35, 0.8]))

    assert (own.PRIMARY, found["hits"], found["accuracy"]) == ("hits", 3, 3 / 4)


def rows(count: int, names: list[str]) -> tuple[pl.Series, pl.DataFrame]:
    random = np.random.default_rng(0)
    probability = random.dirichlet([1] * len(names), count)
    truth = [names[random.choice(len(names), p=row)] for row in probability]
    return pl.Series(truth), predicted(probability[:, 1] if names == TWO else probability, names)
