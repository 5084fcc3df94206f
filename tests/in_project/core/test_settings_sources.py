"""Settings: where they come from, and which of two sources wins."""

from __future__ import annotations

from pathlib import Path

import pytest
import sandbox
from flight_delays.core.errors import SettingsError
from flight_delays.core.paths import project_root
from flight_delays.core.settings import (
    Settings,
    load_settings,
)


def configure(root: Path, text: str) -> None:
    """Write the configuration of a project and forget the one before."""
    (root / "config").mkdir(parents=True, exist_ok=True)
    (root / "config" / "pipeline.toml").write_text(text)
    sandbox.clear_caches()


def test_an_older_file_without_new_settings_stays_good(project: Path) -> None:
    configure(project, "")
    assert load_settings() == Settings()


def test_a_gate_can_be_added_from_the_environment(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(project, "[gates.metrics.one]\nmin = 1")
    monkeypatch.setenv("PIPELINE_GATES__METRICS__TWO__MAX", "2")
    gates = load_settings().gates.metrics
    assert {name: (gate.min, gate.max) for name, gate in gates.items()} == {
        "one": (1.0, None),
        "two": (None, 2.0),
    }


def test_pipeline_home_says_where_the_project_is(
    tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert project_root() == project
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIPELINE_HOME", "project")
    assert project_root() == project
    monkeypatch.setenv("PIPELINE_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(SettingsError, match=r"no config/pipeline\.toml in .*elsewhere.*HOME"):
        project_root()


def test_without_pipeline_home_the_checkout_is_the_project(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIPELINE_HOME")
    assert project_root() == sandbox.CHECKOUT


def test_the_environment_wins_over_dot_env_and_that_over_the_file(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(project, "[training]\ntrials = 2\nseed = 2\nthreads = 2")
    (project / ".env").write_text("PIPELINE_TRAINING__TRIALS=3\nPIPELINE_TRAINING__SEED=3\n")
    monkeypatch.setenv("PIPELINE_TRAINING__TRIALS", "4")
    monkeypatch.setenv("PIPELINE_TRAINING__CANDIDATES", '["linear"]')
    training = load_settings().training
    assert (training.trials, training.seed, training.threads) == (4, 3, 2)
    assert training.candidates == ["linear"]
