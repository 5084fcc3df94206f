"""Candidates of what a team installs and writes: each is loaded from its own requirements alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ..support.projects import Project, children_of, make_installed_project, runs_of

DOMAIN = Path(__file__).parent / "candidates"
# PyTorch as PyPI has it brings gigabytes of CUDA; its builds for the CPU are elsewhere.
WHEELS = os.environ.get("PIP_FIND_LINKS", "https://download.pytorch.org/whl/cpu/torch/")
PACKAGES = ("lightgbm>=4,<5", "skorch>=1.4,<2", "torch==2.13.0+cpu")
CONFIG = """
[project]
name = "Functions"
slug = "functions"
[validation]
min_rows = 20
[training]
candidates = ["words", "lightgbm", "net"]
trials = 2
[gates]
min_above_baseline = 0.1
[gates.metrics.roc_auc]
min = 0.7
"""
# The first lines of what three packages say of their functions, as partitions.
DATA = """
from datetime import date, timedelta
import inspect, numpy, polars, scipy.stats
rows = [
    {"function": f"{package.__name__}.{name}", "text": text, "length": len(doc)}
    | {"package": package.__name__}
    for package in (numpy, polars, scipy.stats)
    for name, member in inspect.getmembers(package)
    if callable(member) and (doc := inspect.getdoc(member) or "")
    and (text := next((line for line in doc.splitlines() if " " in line), ""))
]
frame = polars.DataFrame(rows).sample(fraction=1, shuffle=True, seed=7)
for number in range(28):
    day = date(2026, 3, 1) + timedelta(days=number)
    frame.gather_every(28, number).write_parquet(f"data/sample/{day}.parquet")
"""
# Each candidate's model, copied out of the project with what it says that it needs.
MODELS = """
import json
from functions.core import tracking
runs = tracking.client().search_runs([tracking.experiment_id()])
from mlflow.artifacts import download_artifacts
from functions.core.records import read_records
found = {}
for run in runs:
    if run.data.tags.get("pipeline.name"):
        for record in read_records(run.data.tags["pipeline.run_key"]):
            if record.stage == "train":
                ref = record.result
                found[ref["candidate"]] = download_artifacts(ref["model_uri"])
print(json.dumps(found))
"""
LOAD = """
import json, pickle, sys, pandas
with open(sys.argv[1] + "/model.pkl", "rb") as stream:
    model = pickle.load(stream)
rows = pandas.DataFrame({"text": ["Draw samples from a distribution."], "length": [900]})
print(json.dumps([model.predict(rows).tolist(), model.predict_proba(rows).shape]))
"""


@pytest.fixture(scope="module")
def trained(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project that has trained the candidates."""
    folder = tmp_path_factory.mktemp("functions")
    project = make_installed_project(
        sources, folder, project_name="Functions", package_name="functions"
    )
    domain = project.path / "src" / "functions" / "domain"
    shutil.rmtree(domain)
    shutil.copytree(DOMAIN, domain)
    shutil.rmtree(project.path / "data")
    (project.path / "data" / "sample").mkdir(parents=True)
    (project.path / "config" / "pipeline.toml").write_text(CONFIG)
    project.run("python", "-c", DATA)
    extra = [part for package in PACKAGES for part in ("--with", package)]
    project.run("--find-links", WHEELS, *extra, "functions", "run", "training")
    return project


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_candidates_of_any_kind_are_trained_and_one_is_champion(trained: Project) -> None:
    mlflow = trained.mlflow()
    (parent,) = runs_of(mlflow, "training")
    candidates = children_of(mlflow, parent)

    assert mlflow["aliases"] == {"champion": 1}
    assert candidates.keys() == {"words", "lightgbm", "net"}
    assert 1 <= int(candidates["lightgbm"]["params"]["lgbmclassifier__n_estimators"]) < 300
    assert parent["metrics"]["baseline_roc_auc"] == pytest.approx(0.5)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_each_model_is_loaded_from_its_own_requirements(trained: Project, tmp_path: Path) -> None:
    done = trained.run("python", "-c", MODELS)
    for name, folder in json.loads(done.stdout.splitlines()[-1]).items():
        requirements = Path(folder, "requirements.txt").read_text().splitlines()
        without = [line for line in requirements if not line.startswith("mlflow")]
        assert [line for line in without if "xgboost" in line] == []
        assert any("lightgbm" in line for line in without) is (name == "lightgbm")
        assert any("torch" in line for line in without) is (name == "net")
        (tmp_path / "requirements.txt").write_text("\n".join(without))

        loaded = subprocess.run(
            [
                *("uv", "run", "--quiet", "--no-project", "--isolated", "--find-links", WHEELS),
                *("--python", trained.python, "--with-requirements", "requirements.txt"),
                *("python", "-I", "-c", LOAD, folder),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

        assert loaded.returncode == 0, loaded.stderr[-2000:]
        (label,), shape = json.loads(loaded.stdout)
        assert (label in {"numpy", "polars", "scipy.stats"}, shape) == (True, [1, 3])
