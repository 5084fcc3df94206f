"""Tracking: what MLflow refuses, and what is tried again."""

from __future__ import annotations

from typing import Any

import pytest
from flight_delays.core import tracking
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, RESOURCE_DOES_NOT_EXIST


class Refusing:
    """Stands for a client whose first call is refused."""

    def __init__(self, code: int) -> None:
        self.calls, self._code = 0, code

    def log_inputs(self, *_: Any) -> None:
        """Refuse the first call."""
        self.calls += 1
        if self.calls == 1:
            raise MlflowException("refused", self._code)


def test_a_dataset_that_another_candidate_has_just_logged_is_logged_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = Refusing(BAD_REQUEST)
    monkeypatch.setattr(tracking, "client", lambda: client)
    tracking.log_dataset("run", "features", "somewhere", "digest", 1)
    assert client.calls == 2


def test_any_other_refusal_of_a_dataset_is_raised_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Refusing(RESOURCE_DOES_NOT_EXIST)
    monkeypatch.setattr(tracking, "client", lambda: client)
    with pytest.raises(MlflowException, match="refused"):
        tracking.log_dataset("run", "features", "somewhere", "digest", 1)
    assert client.calls == 1
