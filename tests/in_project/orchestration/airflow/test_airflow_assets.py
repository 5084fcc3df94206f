"""The asset of a new champion, which other teams' DAGs may be scheduled on."""

from __future__ import annotations

from typing import Any

import pytest
import sandbox
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.execution_time.context import OutletEventAccessors


@pytest.mark.parametrize("task", ["promote", "keep_champion"])
def test_only_a_new_champion_emits_its_asset(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever branch the evaluation chose: promote may evaluate again, and decide otherwise."""
    dags: dict[str, Any] = dict(DagBag(str(sandbox.CHECKOUT / "dags")).dags)
    made = next(dag for name, dag in dags.items() if name.endswith("_training")).get_task(task)
    [alias] = made.outlets
    function = made.python_callable

    def emitted(promoted: bool) -> list[str]:
        events = OutletEventAccessors()
        replaced = {
            "run_stage": lambda *_: {"promoted": promoted},
            "get_current_context": lambda: {"outlet_events": events},
        }
        for name, value in replaced.items():
            monkeypatch.setitem(function.__globals__, name, value)
        assert function({}, [None, {}]) == {"promoted": promoted}
        return [event.dest_asset_key.name for event in events[alias].asset_alias_events]

    assert emitted(False) == []
    assert emitted(True) == [alias.name.replace("-new-champion", "-champion")]
