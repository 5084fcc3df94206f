"""Metrics and plots of classification: two or more classes of any type.

A prediction is a frame: `prediction`, the class, and `probability_<class>` for each class. Of two
classes, the last in their order (1, true, "yes") is the positive one.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..figures import ACCENT, MUTED, draw, thin

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PRIMARY = "roc_auc"
GREATER_IS_BETTER = True

PROBABILITY = "probability_"
# How many classes curves, and tables, show: the most frequent ones.
MOST_CURVES = 6
MOST_CLASSES = 20


def predict(model: Any, rows: Any) -> pl.DataFrame:
    """Return the class of each row and the probability of each class.

    Args:
        model: A fitted scikit-learn classifier or pipeline.
        rows: Whatever the model was fitted on: a data frame or a matrix.

    Raises:
        ValueError: The model was fitted on rows of one class only, or gives no probabilities.
    """
    if not hasattr(model, "predict_proba"):
        raise ValueError("a classifier needs predict_proba; SVC has it with probability=True")
    probabilities = np.asarray(model.predict_proba(rows), dtype=np.float64)
    classes = pl.Series("prediction", np.asarray(model.classes_).tolist())
    if len(classes) < 2:
        raise ValueError("the model knows one class, its training rows must hold two or more")
    columns = zip(classes.cast(pl.String), probabilities.T, strict=True)
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    chosen = last.choose(probabilities) if hasattr(last, "choose") else probabilities.argmax(axis=1)
    return pl.DataFrame(
        [
            classes.gather(chosen),
            *(pl.Series(f"{PROBABILITY}{name}", column) for name, column in columns),
        ]
    )


def score(target: pl.Series, prediction: pl.DataFrame) -> dict[str, float]:
    """Measure predictions against the classes that came true.

    With two classes, roc_auc, average_precision and f1 are those of the second class. With more,
    they are means over the classes that came true, each against the rest; `_weighted` weighs the
    classes by their rows.

    Returns:
        roc_auc: Chance that a row of the class is ranked above one of the rest, 0.5 for guessing
            (Hanley and McNeil 1982).
        average_precision: Precision averaged over recall; the share of the class for guessing.
        brier: Half the mean squared error of all probabilities, 0 is perfect (Brier 1950).
        log_loss: Mean negative log-likelihood in nats, 0 is perfect.
        accuracy: Share of rows whose class was predicted.
        balanced_accuracy: Mean share over the classes.
        f1: Harmonic mean of precision and recall.

    Raises:
        ValueError: The target holds one class only, or the lengths differ.
    """
    from sklearn import metrics

    names, truth, chosen, probability = _measured(target, prediction)
    came_true = np.eye(len(names))[truth]
    support = came_true.sum(axis=0)
    seen = np.flatnonzero(support)
    shown = [1] if len(names) == 2 else seen
    auc = [metrics.roc_auc_score(came_true[:, n], probability[:, n]) for n in shown]
    precision = [metrics.average_precision_score(came_true[:, n], probability[:, n]) for n in shown]
    _, recall, f1, _ = _by_class(names, truth, chosen)
    likelihood = np.clip(probability[np.arange(truth.size), truth], np.finfo(float).eps, 1)
    found = {
        "roc_auc": np.mean(auc),
        "average_precision": np.mean(precision),
        "brier": np.mean(((probability - came_true) ** 2).sum(axis=1)) / 2,
        "log_loss": -np.mean(np.log(likelihood)),
        "accuracy": np.mean(truth == chosen),
        "balanced_accuracy": recall[seen].mean(),
        "f1": f1[shown].mean(),
    }
    if len(names) > 2:
        found["roc_auc_weighted"] = np.average(auc, weights=support[seen])
        found["f1_weighted"] = np.average(f1, weights=support)
    return {name: float(value) for name, value in found.items()}


def plots(target: pl.Series, prediction: pl.DataFrame) -> dict[str, str]:
    """Draw the ROC, precision-recall and calibration curves and the confusion matrix.

    Returns:
        An SVG element, or an HTML table, for each title.

    Raises:
        ValueError: Like `score`.
    """
    measured = _measured(target, prediction)
    return {
        **_curves(measured),
        "Calibration": _calibration(measured),
        "Confusion matrix": _confusion_matrix(measured),
        "Classes": _class_table(measured),
    }


class _Measured(NamedTuple):
    """Names of the classes, and for each row the true one, the chosen one, all probabilities."""

    names: list[str]
    truth: NDArray[np.intp]
    chosen: NDArray[np.intp]
    probability: NDArray[np.float64]


def _measured(target: pl.Series, prediction: pl.DataFrame) -> _Measured:
    if len(target) != prediction.height:
        raise ValueError(f"{len(target)} targets for {prediction.height} predictions")
    known = [name for name in prediction.columns if name.startswith(PROBABILITY)]
    names = [name.removeprefix(PROBABILITY) for name in known]
    truth, chosen = target.cast(pl.String), prediction["prediction"].cast(pl.String)
    found = sorted(set(truth))
    if len(found) < 2:
        raise ValueError(
            "the target must hold two classes or more to be measured; found: "
            + (", ".join(found) or "none")
        )
    # A class that the model has never seen has probability 0.
    names += sorted({*truth, *chosen} - {*names})
    probability = prediction.select(known).fill_null(0).to_numpy()
    new = len(names) - len(known)
    numbers = [one.cast(pl.Enum(names)).to_physical().cast(pl.Int64) for one in (truth, chosen)]
    truth_codes, chosen_codes = (one.to_numpy() for one in numbers)
    return _Measured(names, truth_codes, chosen_codes, np.pad(probability, ((0, 0), (0, new))))


def _by_class(
    names: list[str], truth: NDArray[np.intp], chosen: NDArray[np.intp]
) -> tuple[NDArray[np.float64], ...]:
    """Return precision, recall, F1 and rows of each class."""
    from sklearn.metrics import precision_recall_fscore_support

    labels = np.arange(len(names))
    return tuple(precision_recall_fscore_support(truth, chosen, labels=labels, zero_division=0))


def _most_frequent(measured: _Measured, most: int) -> list[int]:
    """Return the classes with the most rows, in their own order."""
    rows = np.bincount(measured.truth, minlength=len(measured.names))
    return sorted(np.argsort(-rows, kind="stable")[:most].tolist())


def _curves(measured: _Measured) -> dict[str, str]:
    from sklearn.metrics import precision_recall_curve, roc_curve

    names, truth, _, probability = measured
    shown = [1] if len(names) == 2 else _most_frequent(measured, MOST_CURVES)
    shown = [number for number in shown if (truth == number).any()]

    def roc(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linestyle="--", label="guessing")
        for number in shown:
            false_rate, true_rate, _ = roc_curve(truth == number, probability[:, number])
            axes.plot(*thin(false_rate, true_rate), **_line(names, number))
        axes.legend(loc="lower right")

    def precision_recall(axes: Axes) -> None:
        if len(names) == 2:
            share = float(truth.mean())
            axes.axhline(share, color=MUTED, linestyle="--", label="guessing")
        for number in shown:
            precision, recall, _ = precision_recall_curve(truth == number, probability[:, number])
            axes.plot(*thin(recall, precision), **_line(names, number))
        axes.set_ylim(0, 1.05)
        axes.legend(loc="upper right")

    return {
        "ROC curve": draw(roc, "false positive rate", "true positive rate"),
        "Precision and recall": draw(precision_recall, "recall", "precision"),
    }


def _line(names: list[str], number: int) -> dict[str, Any]:
    """Return the look of a class's curve."""
    if len(names) == 2:
        return {"color": ACCENT, "label": "model"}
    return {"color": f"C{number % 10}", "label": _short(names[number])}


def _short(name: str) -> str:
    # Else matplotlib reads dollars as formulas, and leaves out labels that begin with `_`.
    text = name.replace("$", r"\$").removeprefix("_")
    return text if len(text) <= 16 else text[:15] + "…"


def _calibration(measured: _Measured) -> str:
    """Draw how often the second class, or with more than two the likeliest, came true.

    Ten bins of equally many rows (Niculescu-Mizil and Caruana 2005; Guo et al. 2017).
    """
    from sklearn.calibration import calibration_curve

    names, truth, _, probability = measured
    likeliest = np.ones_like(truth) if len(names) == 2 else probability.argmax(axis=1)
    right = (truth == likeliest).astype(int)
    said = probability[np.arange(truth.size), likeliest]
    observed, predicted = calibration_curve(right, said, n_bins=10, strategy="quantile")

    def calibration(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linestyle="--", label="perfect")
        axes.plot(predicted, observed, color=ACCENT, marker="o", markersize=4, label="model")
        axes.legend(loc="upper left")

    return draw(calibration, "predicted probability", "observed share")


def _confusion_matrix(measured: _Measured) -> str:
    """Draw how many rows of each class were taken for which; shades are shares of the class."""
    from sklearn.metrics import confusion_matrix

    names, truth, chosen, _ = measured
    shown = _most_frequent(measured, MOST_CLASSES)
    count = confusion_matrix(truth, chosen, labels=shown)
    share = count / np.maximum(count.sum(axis=1, keepdims=True), 1)

    def matrix(axes: Axes) -> None:
        axes.grid(False)
        axes.pcolormesh(share, cmap="Blues", vmin=0, vmax=1.2)
        axes.invert_yaxis()
        places, labels = np.arange(len(shown)) + 0.5, [_short(names[number]) for number in shown]
        axes.set_xticks(places, labels, rotation=90 if len(shown) > 4 else 0)
        axes.set_yticks(places, labels)
        if len(shown) <= 8:
            for (row, column), rows in np.ndenumerate(count):
                axes.text(column + 0.5, row + 0.5, f"{rows:,}", ha="center", va="center")

    return draw(matrix, "predicted", "actual")


def _class_table(measured: _Measured) -> str:
    precision, recall, f1, rows = _by_class(*measured[:3])
    lines = [
        f"<tr><td>{html.escape(measured.names[n])}</td>"
        + "".join(f'<td class="n">{value[n]:.3f}</td>' for value in (precision, recall, f1))
        + f'<td class="n">{rows[n]:,.0f}</td></tr>'
        for n in _most_frequent(measured, MOST_CLASSES)
    ]
    heads = "".join(f'<th class="n">{name}</th>' for name in ("precision", "recall", "f1", "rows"))
    return f"<table><tr><th>class</th>{heads}</tr>{''.join(lines)}</table>"
