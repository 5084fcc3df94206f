"""A net of PyTorch with the manners of scikit-learn, by skorch."""

from __future__ import annotations

from typing import Any

import torch
from skorch import NeuralNetClassifier


class Layers(torch.nn.Module):
    """One hidden layer; three classes.

    Args:
        hidden: How many units it has.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.LazyLinear(hidden),
            torch.nn.ReLU(),
            torch.nn.Linear(hidden, 3),
            torch.nn.Softmax(dim=-1),
        )

    def forward(self, matrix: torch.Tensor) -> torch.Tensor:
        """Return the probability of each class, shape (rows, 3)."""
        probabilities: torch.Tensor = self.layers(matrix)
        return probabilities


class Net(NeuralNetClassifier):
    """A classifier that is stored with its layers.

    skorch pickles them apart, as a reference to this module, which only this project can follow.
    """

    def __getstate__(self) -> dict[str, Any]:
        """Return all of it."""
        return dict(vars(self))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take it back."""
        vars(self).update(state)
