"""The generated project's guards fail when somebody breaks what they guard.

Each mutation undoes one protection in a project; the guard named for it must fail.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ..support.projects import Project, make_installed_project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PACKAGE = "src/flight_delays"
# The guard, the file to break, what is in it, and what takes its place.
MUTATIONS = [
    (
        "silent_failure",
        f"{PACKAGE}/pipeline.py",
        "alerts.send_failure_of(run, failed_stage(run), error)",
        "pass",
    ),
    (
        "silent_failure_of_a_task",
        f"{PACKAGE}/orchestration/airflow/tasks.py",
        '"on_failure_callback": alert_failure,',
        "",
    ),
    (
        "missing_hand_over",
        f"{PACKAGE}/core/stage.py",
        "raise MissingUpstream(stage, parameter)",
        "return None",
    ),
    (
        "missing_hand_over_between_tasks",
        "dags/inference.py",
        "scores = score(run, features)",
        "scores = score({}, {})",
    ),
    ("dag_that_does_not_appear", "dags/inference.py", "\ninference()\n", "\n"),
    ("hard_coded_path", "config/pipeline.toml", '"data/sample"', '"/home/me/flights"'),
    (
        "task_without_a_time_limit",
        f"{PACKAGE}/orchestration/airflow/tasks.py",
        '"execution_timeout":',
        '"doc":',
    ),
    (
        "unpickled_input",
        f"{PACKAGE}/stages/evaluate.py",
        "registry.load_model(",
        "mlflow.sklearn.load_model(",
    ),
    (
        "training_on_unvalidated_data",
        f"{PACKAGE}/stages/featurize.py",
        "if not dataset.validated:",
        "if False:",
    ),
    (
        "untracked_run",
        f"{PACKAGE}/core/stage.py",
        "if not run.tracking_run_id:",
        "if False:",
    ),
]


@pytest.fixture(scope="module")
def project(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return an installed default project."""
    return make_installed_project(sources, tmp_path_factory.mktemp("guards"))


def guard(project: Project, name: str) -> tuple[int, str]:
    """Run one guard of the project; returns pytest's exit code and what it printed."""
    tests = ("tests/test_guards.py", "tests/orchestration/test_dags.py")
    done = project.run("pytest", *tests, "-k", f"test_guard_{name}", check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("name", "file", "intact", "broken"), MUTATIONS, ids=[row[0] for row in MUTATIONS]
)
def test_guard_fails_when_its_protection_is_removed(
    project: Project, name: str, file: str, intact: str, broken: str
) -> None:
    path = project.path / file
    text = path.read_text()
    assert text.count(intact) >= 1
    backup = shutil.copy2(path, path.with_suffix(".backup"))
    path.write_text(text.replace(intact, broken))
    try:
        code, output = guard(project, name)
    finally:
        shutil.move(backup, path)

    assert code == 1, output
    assert f"test_guard_{name}" in output


def test_all_guards_pass_in_an_intact_project(project: Project) -> None:
    code, output = guard(project, "")

    assert code == 0, output
