"""Rules for two classes: the probability from which the second one is predicted.

`THRESHOLD` in domain/problem.py is one of these, or a function like those that they return: it
gets which validation rows are of the second class, and all rows' probabilities of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Rule: TypeAlias = Callable[[NDArray[np.bool_], NDArray[np.float64]], float]


def fixed(threshold: float) -> Rule:
    """Take this threshold, whatever the rows."""
    return lambda truth, probability: threshold


def best_f_beta(beta: float = 1.0) -> Rule:
    """Take the threshold with the largest F-beta: recall counts `beta` times as much as precision.

    Source: van Rijsbergen, Information Retrieval (1979).
    """

    def rule(truth: NDArray[np.bool_], probability: NDArray[np.float64]) -> float:
        from sklearn.metrics import precision_recall_curve

        precision, recall, thresholds = precision_recall_curve(truth, probability)
        below = beta**2 * precision + recall
        score = (1 + beta**2) * precision * recall / np.where(below > 0, below, 1)
        return float(thresholds[score[:-1].argmax()])

    return rule


def least_cost(*, false_alarm: float, miss: float) -> Rule:
    """Take the threshold with the least total cost, given the cost of each kind of error.

    Source: Elkan, The Foundations of Cost-Sensitive Learning (2001), on observed errors.
    """

    def rule(truth: NDArray[np.bool_], probability: NDArray[np.float64]) -> float:
        from sklearn.metrics import roc_curve

        false_rate, true_rate, thresholds = roc_curve(truth, probability, drop_intermediate=False)
        alarms, misses = false_rate * (~truth).sum(), (1 - true_rate) * truth.sum()
        # The first threshold, infinite, predicts no row as positive.
        thresholds[0] = 2.0
        return float(thresholds[(false_alarm * alarms + miss * misses).argmin()])

    return rule
