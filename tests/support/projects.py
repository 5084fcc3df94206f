"""Generated projects with an environment of their own, installed from their own files."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .template import commit_all, git, make_project

# What runs of a project have recorded in MLflow, read with the project's own MLflow.
SUMMARY = """
import json
from {package}.core import registry, tracking
client, model = tracking.client(), registry.model_name()
def summary(run):
    return {{
        "id": run.info.run_id, "status": run.info.status, "tags": run.data.tags,
        "params": run.data.params, "metrics": run.data.metrics,
        "inputs": [item.dataset.digest for item in run.inputs.dataset_inputs],
        "artifacts": [item.path for item in client.list_artifacts(run.info.run_id)],
    }}
versions = client.search_model_versions(f"name = '{{model}}'")
aliases = client.get_registered_model(model).aliases if versions else {{}}
print(json.dumps({{
    "runs": [summary(run) for run in client.search_runs([tracking.experiment_id()])],
    "versions": [int(version.version) for version in versions],
    "aliases": {{name: int(version) for name, version in aliases.items()}},
}}))
"""
# The packages of projects that this process has installed, by interpreter.
COMPILED: dict[str, list[Path]] = {}


@dataclass
class Project:
    """A generated project.

    Attributes:
        python: The interpreter its environment was made with.
        answers: What the template was answered.
        environment: Variables of every command, on top of those of the tests.
    """

    path: Path
    package: str
    python: str
    answers: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)

    def run(
        self, *command: str, check: bool = True, variables: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command with `uv run` in the project; a failure shows its last lines."""
        done = subprocess.run(
            ["uv", "run", "--quiet", "--python", self.python, *command],
            cwd=self.path,
            env={**os.environ, **self.environment, **(variables or {})},
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"{' '.join(command)[:200]} ended with {done.returncode}:\n"
                f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
            )
        return done

    def type(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run a line in the project as a shell does: nothing is set but what the line sets.

        And how often candidates are tuned, where these tests say so.
        """
        trials = "PIPELINE_TRAINING__TRIALS"
        given = {trials: self.environment[trials]} if trials in self.environment else {}
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.path,
            env={**os.environ, "UV_PYTHON": self.python, **given},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}:\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
        return done

    def share_mypy_cache(self, folder: Path) -> None:
        """Keep what mypy finds in packages, which takes most of its time, for other projects.

        It knows a file by its content.
        """
        self.environment["MYPY_CACHE_DIR"] = str(folder / "mypy")

    def edit_config(self, old: str, new: str) -> None:
        """Change a line of config/pipeline.toml."""
        config = self.path / "config" / "pipeline.toml"
        text = config.read_text()
        assert old in text
        config.write_text(text.replace(old, new))

    def run_alone(self, partition: str) -> dict[str, Any]:
        """Train with the plain runner, in a store of its own; returns what `mlflow` returns."""
        folder = self.path.parent / f"{self.path.name}-alone"
        alone = {
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            "PIPELINE_STORAGE__ROOT": f"{folder}/artifacts",
            "PIPELINE_WORKERS__DISTRIBUTED": "false",
        }
        command = ("run", "training", "--partition", partition)
        self.run(self.answers["project_slug"], *command, variables=alone)
        return self.mlflow(alone)

    def mlflow(self, variables: dict[str, str] | None = None) -> dict[str, Any]:
        """Return the project's MLflow runs, registered versions and aliases."""
        done = self.run("python", "-c", SUMMARY.format(package=self.package), variables=variables)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


def make_installed_project(sources: Path, folder: Path, **answers: Any) -> Project:
    """Generate a project, commit it, lock it, and install it on the Python it asks for."""
    make_project(sources, folder, answers, with_data=True)
    lift_certifi(folder / "pyproject.toml")
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit_all(folder, "Generate")
    given = yaml.safe_load((folder / ".copier-answers.yml").read_text())
    python = find_python(given["python_version"])
    project = Project(folder, given["package_name"], python, given)
    if given["tracking"] != "mlflow_local":
        # As far as MLflow's client is concerned a file is one more address.
        uri = f"sqlite:///{folder / 'var' / 'mlflow' / 'mlflow.db'}"
        project.environment["MLFLOW_TRACKING_URI"] = uri
    if given["workers"] == "distributed":
        project.environment["PIPELINE_WORKERS__DISTRIBUTED"] = "false"
    for command in (("lock",), ("sync", "--locked")):
        subprocess.run(
            ["uv", *command, "--quiet", "--python", project.python], cwd=folder, check=True
        )
    link_bytecode(project)
    return project


def link_bytecode(project: Project) -> None:
    """Link what earlier projects have compiled of the same packages: each compiles for ten seconds.

    uv links a package's files from its cache, so their times are the same in all environments, and
    Python compiles again what does not fit its source.
    """
    [packages] = project.path.glob(".venv/lib/python*/site-packages")
    others = COMPILED.setdefault(project.python, [])
    for other in others:
        for compiled in other.rglob("*.pyc"):
            linked = packages / compiled.relative_to(other)
            if linked.parents[1].is_dir() and not linked.exists():
                linked.parent.mkdir(exist_ok=True)
                linked.hardlink_to(compiled)
    others.append(packages)


def lift_certifi(pyproject: Path) -> None:
    """Let uv take the newest certifi there is.

    Prefect 3.9 and kfp 2.17 want one from the day before their release, which a mirror of PyPI may
    not have yet. A user's project has no such line.
    """
    text = pyproject.read_text()
    assert "[tool.uv]\n" in text
    line = '[tool.uv]\noverride-dependencies = ["certifi"]\n'
    pyproject.write_text(text.replace("[tool.uv]\n", line, 1))


def find_python(version: str) -> str:
    """Return an interpreter: one that uv finds, one of pyenv's, or the version for uv to fetch."""
    found = subprocess.run(
        ["uv", "python", "find", "--no-project", "--no-python-downloads", version],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    if found.returncode == 0:
        return found.stdout.strip()
    # Not "~": the tests have a home of their own.
    home = pwd.getpwuid(os.getuid()).pw_dir
    root = Path(os.environ.get("PYENV_ROOT", f"{home}/.pyenv"))
    for candidate in sorted(root.glob(f"versions/{version}.*/bin/python")):
        return str(candidate)
    return version


def runs_of(mlflow: dict[str, Any], pipeline: str) -> list[dict[str, Any]]:
    """Return the parent runs of a pipeline, newest first."""
    return [run for run in mlflow["runs"] if run["tags"].get("pipeline.name") == pipeline]


def children_of(mlflow: dict[str, Any], parent: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the candidates' runs below a parent, by candidate."""
    return {
        run["params"]["candidate"]: run
        for run in mlflow["runs"]
        if run["tags"].get("mlflow.parentRunId") == parent["id"]
    }


def training_result(mlflow: dict[str, Any]) -> dict[str, Any]:
    """Return what the newest training run led to, which must not depend on the engine.

    The metrics of the challenger, each candidate's score and parameters, and the fingerprint of
    the data they learned from.
    """
    parent = runs_of(mlflow, "training")[0]
    measured = {
        name: value
        for name, value in parent["metrics"].items()
        # Not what depends on the champion it was held against, or on the machine.
        if name.startswith(("holdout_", "rows."))
    }
    candidates = {
        name: (
            run["inputs"],
            run["params"],
            {metric: value for metric, value in run["metrics"].items() if "seconds" not in metric},
        )
        for name, run in children_of(mlflow, parent).items()
    }
    assert candidates
    return {"metrics": measured, "candidates": candidates}
