"""Metrics and plots of binary classification; the target is 0 or 1, a prediction P(target = 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..figures import ACCENT, MUTED, draw, thin

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PRIMARY = "roc_auc"
GREATER_IS_BETTER = True


def predict(model: Any, rows: Any) -> NDArray[np.float64]:
    """Return the probability of class 1 for each row, shape (rows,).

    Args:
        model: A fitted scikit-learn classifier or pipeline.
        rows: Whatever the model was fitted on: a data frame or a matrix.

    Raises:
        ValueError: The model was fitted on rows of one class only, or of more than two.
    """
    probabilities = np.asarray(model.predict_proba(rows), dtype=np.float64)
    if probabilities.shape[1] != 2:
        raise ValueError(
            f"the model knows {probabilities.shape[1]} class(es), two are needed: "
            "its training rows must hold both"
        )
    return probabilities[:, 1]


def score(target: ArrayLike, prediction: ArrayLike) -> dict[str, float]:
    """Measure predicted probabilities against the classes that came true.

    Returns:
        roc_auc: Chance that a row of class 1 is ranked above one of class 0, 0.5 for guessing
            (Hanley and McNeil 1982).
        average_precision: Precision averaged over recall; the share of class 1 for guessing.
        brier: Mean squared error of the probabilities, 0 is perfect (Brier 1950).
        log_loss: Mean negative log-likelihood in nats, 0 is perfect.
        accuracy: Share of rows on the right side of 0.5.

    Raises:
        ValueError: The target holds one class only, or the lengths differ.
    """
    from sklearn import metrics

    truth, probability = _arrays(target, prediction)
    return {
        "roc_auc": float(metrics.roc_auc_score(truth, probability)),
        "average_precision": float(metrics.average_precision_score(truth, probability)),
        "brier": float(metrics.brier_score_loss(truth, probability)),
        "log_loss": float(metrics.log_loss(truth, probability)),
        "accuracy": float(np.mean((probability >= 0.5) == (truth == 1))),
    }


def plots(target: ArrayLike, prediction: ArrayLike) -> dict[str, str]:
    """Draw the ROC, precision-recall and calibration curves.

    Returns:
        An SVG element for each title.

    Raises:
        ValueError: Like `score`.
    """
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import precision_recall_curve, roc_curve

    truth, probability = _arrays(target, prediction)
    false_rate, true_rate, _ = roc_curve(truth, probability)
    precision, recall, _ = precision_recall_curve(truth, probability)
    # Ten bins of equally many rows (Niculescu-Mizil and Caruana 2005).
    observed, predicted = calibration_curve(truth, probability, n_bins=10, strategy="quantile")

    def roc(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linestyle="--", label="guessing")
        axes.plot(*thin(false_rate, true_rate), color=ACCENT, label="model")
        axes.legend(loc="lower right")

    def precision_recall(axes: Axes) -> None:
        axes.axhline(float(truth.mean()), color=MUTED, linestyle="--", label="guessing")
        axes.plot(*thin(recall, precision), color=ACCENT, label="model")
        axes.set_ylim(0, 1.05)
        axes.legend(loc="upper right")

    def calibration(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linestyle="--", label="perfect")
        axes.plot(predicted, observed, color=ACCENT, marker="o", markersize=4, label="model")
        axes.legend(loc="upper left")

    return {
        "ROC curve": draw(roc, "false positive rate", "true positive rate"),
        "Precision and recall": draw(precision_recall, "recall", "precision"),
        "Calibration": draw(calibration, "predicted probability", "observed share"),
    }


def _arrays(
    target: ArrayLike, prediction: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    truth = np.asarray(target)
    probability = np.asarray(prediction, dtype=np.float64)
    if truth.shape != probability.shape:
        raise ValueError(f"{truth.size} targets for {probability.size} predictions")
    classes = np.unique(truth)
    if not np.array_equal(classes, [0, 1]):
        found = ", ".join(f"{value:g}" for value in classes[:5]) or "none"
        raise ValueError(
            f"the target must hold both classes, 0 and 1, to be measured; found: {found}"
        )
    return truth.astype(np.int64), probability
