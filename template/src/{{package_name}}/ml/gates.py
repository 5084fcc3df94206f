"""The gates: bounds that a model's metrics must meet, and the models it must beat."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from ..core.errors import BadInput
from ..core.outcomes import GateResult, Rival
from ..core.settings import Gates


def check_gates(metrics: Mapping[str, float], gates: Gates) -> tuple[GateResult, ...]:
    """Check metrics against the bounds of `[gates.metrics]`.

    Raises:
        BadInput: A gate names a metric that is not measured.
    """
    results: list[GateResult] = []
    for name, gate in gates.metrics.items():
        if name not in metrics:
            raise BadInput(f"gates.metrics.{name}: no such metric; there are: {', '.join(metrics)}")
        value = metrics[name]
        result = functools.partial(GateResult, metric=name, value=value)
        if gate.min is not None:
            results.append(result(bound="min", limit=gate.min, passed=value >= gate.min))
        if gate.max is not None:
            results.append(result(bound="max", limit=gate.max, passed=value <= gate.max))
    return tuple(results)


def improvement_over(
    other: Mapping[str, float],
    challenger: Mapping[str, float],
    *,
    against: Rival,
    metric: str,
    greater_is_better: bool,
    least: float,
) -> GateResult:
    """Compare a challenger with the champion or the baseline, measured on the same rows.

    Args:
        other: The metrics of the model it must beat.
        challenger: Its metrics.
        against: Which model it must beat.
        metric: The one that compares models.
        greater_is_better: Its direction.
        least: How much better the challenger must be, in the metric's unit.
    """
    gain = challenger[metric] - other[metric]
    gain = gain if greater_is_better else -gain
    return GateResult(
        metric=metric,
        value=challenger[metric],
        bound="improvement",
        limit=least,
        passed=gain > least,
        against=against,
        other=other[metric],
        gain=gain,
    )
