"""State of an engine that others keep on this machine is named, and left alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import flight_delays
import sandbox

# By engine: what prepares it, what it then does first, a variable that names where it keeps its
# state, and one that goes with it.
ENGINES = {
    "airflow": ("local", "import airflow.settings", "AIRFLOW_HOME", "AIRFLOW__CORE__EXECUTOR"),
    "dagster": (
        "instance",
        "import dagster; dagster.DagsterInstance.get().dispose()",
        "DAGSTER_HOME",
        "DAGSTER_POSTGRES_URL",
    ),
    "prefect": (
        "local",
        "import prefect.settings as s; assert s.get_current_settings().home",
        "PREFECT_HOME",
        "PREFECT_API_KEY",
    ),
}
[NAME] = ENGINES.keys() & {
    path.parent.name
    for path in Path(flight_delays.__file__).parent.glob("orchestration/*/__init__.py")
}
ENGINE = ENGINES[NAME]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def prepared(project: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Prepare the engine for a project in a shell that knows nothing of it; prints where it is."""
    target = project / "src" / "flight_delays"
    if not target.exists():
        shutil.copytree(sandbox.CHECKOUT / "src" / "flight_delays", target)
    module, first, state, other = ENGINE
    code = (
        f"import os\nfrom flight_delays.orchestration.{NAME} import {module}\n"
        f"{module}.configure_environment()\n{first}\n"
        f"print(os.environ[{state!r}], os.environ.get({other!r}))"
    )
    left = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIPELINE_HOME", NAME.upper()))
    }
    paths = os.pathsep.join([str(project / "src"), *sys.path])
    return subprocess.run(
        [sys.executable, "-c", code],
        env=left | {"PYTHONPATH": paths} | variables,
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )


def test_another_deployment_is_named_and_not_touched(project: Path, tmp_path: Path) -> None:
    _, _, state, other = ENGINE
    home = tmp_path / "other"
    home.mkdir()
    for name in ("airflow.cfg", "dagster.yaml", "profiles.toml"):
        (home / name).write_text("\n")
    before = content(home)
    done = prepared(project, {state: str(home), other: "theirs"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-2:] == [str(project / "var" / NAME), "None"]
    assert f"{state} of this shell: another deployment's" in done.stderr.replace(other, state)
    assert content(home) == before


def test_state_that_dot_env_names_is_used(project: Path, tmp_path: Path) -> None:
    _, _, state, _ = ENGINE
    home = tmp_path / "asked for"
    home.mkdir()
    (project / ".env").write_text(f"{state}='{home}'\n")
    for shell in ({}, {state: str(home)}, {state: str(tmp_path / "other")}):
        done = prepared(project, shell)
        assert done.stdout.splitlines()[-1].startswith(f"{home} "), done.stderr
        assert ("another deployment's" in done.stderr) == (shell.get(state, f"{home}") != f"{home}")
    assert not (tmp_path / "other").exists()
