"""Metrics and plots of regression.

A prediction is a frame with a column `prediction`: numbers in the target's unit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..figures import ACCENT, MUTED, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PRIMARY = "mae"
GREATER_IS_BETTER = False


def predict(model: Any, rows: Any) -> pl.DataFrame:
    """Return the predicted value of each row, in the target's unit.

    Args:
        model: A fitted scikit-learn regressor or pipeline.
        rows: Whatever the model was fitted on: a data frame or a matrix.
    """
    values = np.asarray(model.predict(rows), dtype=np.float64).reshape(-1)
    return pl.DataFrame({"prediction": values})


def score(target: pl.Series, prediction: pl.DataFrame) -> dict[str, float]:
    """Measure predicted values against those that came true.

    Returns:
        mae: Mean absolute error, in the target's unit.
        rmse: Root mean squared error, in the target's unit; large errors weigh more.
        median_ae: Median absolute error, in the target's unit; outliers do not count.
        r2: Share of the target's variance that is explained; 0 for predicting its mean, below 0
            for worse (coefficient of determination).

    Raises:
        ValueError: Fewer than two rows, all targets are equal, or the lengths differ.
    """
    from sklearn import metrics

    truth, value = _arrays(target, prediction)
    return {
        "mae": float(metrics.mean_absolute_error(truth, value)),
        "rmse": float(metrics.root_mean_squared_error(truth, value)),
        "median_ae": float(metrics.median_absolute_error(truth, value)),
        "r2": float(metrics.r2_score(truth, value)),
    }


def plots(target: pl.Series, prediction: pl.DataFrame) -> dict[str, str]:
    """Draw predicted against actual values, and the distribution of the residuals.

    The axes leave out the outermost 1 % of the values, which would squeeze all others together.

    Returns:
        An SVG element for each title.

    Raises:
        ValueError: Like `score`.
    """
    truth, value = _arrays(target, prediction)
    residual = value - truth
    low, high = _middle(np.concatenate([truth, value]))

    def predicted_and_actual(axes: Axes) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        shades = LinearSegmentedColormap.from_list("accent", ["#dbeafe", ACCENT, "#1e3a8a"])
        axes.hexbin(
            truth,
            value,
            gridsize=24,
            extent=(low, high, low, high),
            bins="log",
            mincnt=1,
            cmap=shades,
            linewidths=0,
        )
        axes.plot([low, high], [low, high], color=MUTED, linestyle="--", label="perfect")
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.legend(loc="upper left")

    def residuals(axes: Axes) -> None:
        axes.hist(residual, bins=40, range=_middle(residual), color=ACCENT, alpha=0.85)
        axes.axvline(0, color=MUTED, linestyle="--")

    return {
        "Predicted and actual": draw(predicted_and_actual, "actual", "predicted"),
        "Residuals": draw(residuals, "predicted - actual", "rows"),
    }


def _middle(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(values, [0.005, 0.995])
    return float(low), float(high) if high > low else float(low) + 1.0


def _arrays(
    target: pl.Series, prediction: pl.DataFrame
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    truth = target.cast(pl.Float64).to_numpy()
    value = prediction["prediction"].cast(pl.Float64).to_numpy()
    if truth.shape != value.shape:
        raise ValueError(f"{truth.size} targets for {value.size} predictions")
    if np.unique(truth).size < 2:
        raise ValueError("two different target values or more are needed to be measured")
    return truth, value
