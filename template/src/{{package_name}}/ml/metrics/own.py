"""A custom metric, beside those of its kind of problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class OwnMetric:
    """The metrics of `base`, and one more that compares models.

    Tuning optimizes it, a challenger must improve it, and gates and live performance use it like
    the other metrics. Its name is the function's.

    Args:
        base: `classification`, `regression`, or another one of these.
        function: Takes the target and a frame of predictions, as `base.score` does.
        GREATER_IS_BETTER: Its direction.
    """

    base: Any
    function: Callable[[pl.Series, pl.DataFrame], float]
    GREATER_IS_BETTER: bool

    @property
    def PRIMARY(self) -> str:  # noqa: N802
        """Return its name."""
        return self.function.__name__

    def predict(self, model: Any, rows: Any) -> pl.DataFrame:
        """Predict as `base` does."""
        predicted: pl.DataFrame = self.base.predict(model, rows)
        return predicted

    def score(self, target: pl.Series, prediction: pl.DataFrame) -> dict[str, float]:
        """Measure as `base` does, and with the function."""
        own = float(self.function(target, prediction))
        return {self.PRIMARY: own, **self.base.score(target, prediction)}

    def plots(self, target: pl.Series, prediction: pl.DataFrame) -> dict[str, str]:
        """Draw as `base` does."""
        return dict(self.base.plots(target, prediction))
