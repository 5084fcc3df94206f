"""Other problems than the example's: a table of three classes, in words, that nobody has seen.

Each domain is written by the test, and the pipelines run in a process of their own: what reads a
domain keeps it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sandbox
from sklearn.datasets import load_wine

Do = Callable[..., dict[str, Any]]
DAYS = [f"2013-01-{day}" for day in range(23, 29)]
GRAPES = ["barolo", "grignolino", "barbera"]
SCHEMA = """
import pandera.polars as pa

KEY, LABEL = ("bottle",), "grape"

class Wine(pa.DataFrameModel):
    bottle: int
    alcohol: float = pa.Field(gt=0)
    color_intensity: float = pa.Field(gt=0, alias="color.intensity (1)")
    proline: float = pa.Field(gt=0, alias="ALCOHOL")
    grape: str = pa.Field(nullable=True)

CONTRACT = Wine
"""
FEATURES = """
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import StandardScaler

FEATURES = ("alcohol", "color.intensity (1)", "ALCOHOL")
def features(rows): return rows
def encoder(): return ColumnTransformer([("all", StandardScaler(), FEATURES)])
"""
PROBLEM = """
import polars as pl
from flight_delays.ml.metrics import classification as metrics, thresholds
from flight_delays.ml.metrics.own import OwnMetric

def target(): return pl.col("grape")

def xgboost(trial, seed):
    from xgboost import XGBClassifier
    depth = trial.suggest_int("max_depth", 2, 3)
    return XGBClassifier(max_depth=depth, n_estimators=400, random_state=seed, n_jobs=1)

CANDIDATES = {"xgboost": xgboost}
"""
# Trains, scores and monitors the newest day, and serves it.
RUN = """
import asyncio, json, httpx
from flight_delays import pipeline
from flight_delays.core import registry, storage, tracking
from flight_delays.core.records import read_records
from flight_delays.serving.service import create_app
from flight_delays.serving.settings import ServingSettings

def results(run):
    found = {record.stage: record.result for record in read_records(run.key)}
    for result in filter(None, found.values()):
        if "uri" in result:
            result["uri"] = str(storage.path_of(result["uri"]))
    return found

async def serve(rows):
    app = create_app(ServingSettings())
    app.state.follower.check()
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.post("/predict", json={"rows": rows})
        return answer.json(), (await client.get("/openapi.json")).json()

trained, scored = pipeline.execute("training"), pipeline.execute("inference")
found = {"training": results(trained), "inference": results(scored)}
found["params"] = tracking.client().get_run(registry.require_champion().run_id).data.params
row = {"bottle": 1, "alcohol": 14.2, "color.intensity (1)": 5.6, "ALCOHOL": 1065.0}
found["answer"], found["openapi"] = asyncio.run(serve([row]))
print(json.dumps(found))
"""
# Trains again; prints what was decided and told.
AGAIN = """
import json
from flight_delays import alerts, pipeline
from flight_delays.core import storage
from flight_delays.core.logs import console
from flight_delays.core.records import read_records
from flight_delays.reporting.terminal import print_result
told = []
alerts.send = told.append
run = pipeline.execute("training")
results = {record.stage: record.result for record in read_records(run.key)}
page = storage.path_of(results["report"]["uri"]).read_text()
found = {"promote": results["promote"], "told": [event.kind for event in told], "page": page}
with console().capture() as shown:
    print_result(console(), run.key)
found["terminal"] = shown.get()
print(json.dumps(found | {"summary": told[-1].summary if told else ""}))
"""


@pytest.fixture
def do(tmp_path: Path, tables: Path) -> Do:
    """Return a function that runs a script on wines: `do(script, problem, **variables)`."""
    root = sandbox.make(tmp_path / "project", tables)
    source = tmp_path / "source"
    source.mkdir()
    table = load_wine(as_frame=True).frame
    rows = pl.from_pandas(table).with_row_index("bottle").cast({"bottle": pl.Int64})
    # Names that no Python has, and two that differ by case.
    rows = rows.rename({"color_intensity": "color.intensity (1)", "proline": "ALCOHOL"})
    rows = rows.with_columns(grape=pl.col("target").replace_strict(dict(enumerate(GRAPES))))
    for number, day in enumerate(DAYS):
        rows.drop("target").gather_every(6, number).write_parquet(source / f"{day}.parquet")
    folder = tmp_path / "a_team" / "domain"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "__init__.py").touch()
    (folder / "schema.py").write_text(SCHEMA)
    (folder / "features.py").write_text(FEATURES)
    settings = {
        "DATA__SOURCE": str(source),
        "DOMAIN": "a_team.domain",
        "TRAINING__CANDIDATES": '["xgboost"]',
        "VALIDATION__MIN_ROWS": "5",
    }

    def do(script: str, problem: str = PROBLEM, **variables: str) -> dict[str, Any]:
        (folder / "problem.py").write_text(problem)
        with sandbox.enter(root, sandbox.SMALL | settings | variables):
            os.environ["PYTHONPATH"] = str(tmp_path)
            done = subprocess.run(
                [sys.executable, "-c", script], capture_output=True, text=True, check=False
            )
        assert done.returncode == 0, done.stderr[-4000:]
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    return do


def test_three_classes_in_words_have_a_champion_predictions_and_answers(do: Do) -> None:
    found = do(RUN, GATES__METRICS__F1__MIN="0.7", GATES__MIN_ABOVE_BASELINE="0.2")

    evaluated = found["training"]["evaluate"]
    assert found["training"]["promote"]["promoted"]
    assert evaluated["metrics"]["roc_auc"] > 0.9
    assert evaluated["baseline_metrics"]["roc_auc"] == pytest.approx(0.5)
    bounds = [gate["bound"] for gate in evaluated["verdict"]["gates"]]
    assert bounds == ["min", "min", "improvement"]
    page = Path(found["training"]["report"]["uri"]).read_text()
    assert '<th class="n">baseline</th>' in page
    assert "<td>grignolino</td>" in page
    assert "Confusion matrix" in page

    predicted = pl.read_parquet(found["inference"]["score"]["uri"])
    probabilities = [f"probability_{grape}" for grape in sorted(GRAPES)]
    assert predicted.columns == ["bottle", "prediction", *probabilities, "model_version"]
    assert set(predicted["prediction"]) == set(GRAPES)
    assert (
        predicted.select(pl.sum_horizontal(probabilities)).to_series().round(6).unique().item() == 1
    )
    assert found["inference"]["monitor"]["live_metrics"]["accuracy"] > 0.7

    (answer,) = found["answer"]["predictions"]
    assert list(answer) == ["bottle", "prediction", *probabilities]
    assert (answer["bottle"], answer["prediction"]) == (1, "barolo")
    schema = found["openapi"]["components"]["schemas"]["Prediction"]
    assert "string" in [kind["type"] for kind in schema["properties"]["prediction"]["anyOf"]]
    assert schema["patternProperties"] == {"^probability_": {"type": "number"}}


def test_classes_that_are_rare_or_were_not_learned_are_named_with_their_rows(do: Do) -> None:
    # Of the newest day only, which is held out.
    new = PROBLEM.replace(
        'return pl.col("grape")',
        'return pl.when(pl.col("bottle") % 30 == 5).then(pl.lit("[new]"))'
        '.otherwise(pl.when(pl.col("bottle") < 12).then(pl.lit("few")).otherwise(pl.col("grape")))',
    )
    found = do(AGAIN, new)

    unknown, few = found["promote"]["verdict"]["notes"]
    assert (unknown["kind"], unknown["classes"]) == ("classes_not_learned", {"[new]": 6})
    assert few["kind"] == "few_rows_of_classes"
    assert few["classes"]["few"] < 10
    assert "not learned, and never predicted, since no row to learn from is of it" in found["page"]
    assert found["terminal"].count("[new]") == 1


def test_a_class_that_is_never_predicted_is_named(do: Do) -> None:
    problem = PROBLEM.replace("grape", "is_barolo") + "THRESHOLD = thresholds.fixed(2.0)\n"
    problem = problem.replace('pl.col("is_barolo")', 'pl.col("grape") == "barolo"')
    found = do(AGAIN, problem, GATES__METRICS="{}")

    [never] = [note for note in found["promote"]["verdict"]["notes"] if note["classes"]]
    assert never["kind"] == "classes_never_predicted"
    assert list(never["classes"]) == ["true"]


def test_a_team_has_its_own_metric_threshold_and_way_to_fit(do: Do) -> None:
    problem = (
        PROBLEM.replace('pl.col("grape")', 'pl.col("grape") == "barolo"')
        + """
def cost(target, prediction):
    wrong = (target != prediction["prediction"]).cast(int)
    return float((wrong * (1 + 9 * target.cast(int))).mean())

metrics = OwnMetric(metrics, cost, GREATER_IS_BETTER=False)
THRESHOLD = thresholds.least_cost(false_alarm=1, miss=10)

def fit(estimator, matrix, target, validation):
    if validation is None:
        estimator.fit(matrix, target)
        return {}
    estimator.set_params(early_stopping_rounds=3)
    estimator.fit(matrix, target, eval_set=[validation], verbose=False)
    return {"n_estimators": estimator.best_iteration + 1}
"""
    )

    found = do(RUN, problem, GATES__METRICS__COST__MAX="2")

    assert found["training"]["promote"]["promoted"]
    gates = found["training"]["evaluate"]["verdict"]["gates"]
    assert ("cost", "max") in [(gate["metric"], gate["bound"]) for gate in gates]
    assert 1 <= int(found["params"]["n_estimators"]) < 400
    threshold = float(found["params"]["threshold"])
    assert "cost" in found["inference"]["monitor"]["live_metrics"]
    predicted = pl.read_parquet(found["inference"]["score"]["uri"])
    assert predicted["prediction"].equals(
        (predicted["probability_true"] >= threshold).alias("prediction")
    )
    (answer,) = found["answer"]["predictions"]
    assert answer["prediction"] is (answer["probability_true"] >= threshold)


def test_a_champion_that_breaks_a_gate_tightened_since_is_named_and_told(do: Do) -> None:
    first = do(AGAIN)
    same = do(AGAIN)
    tightened = do(AGAIN, GATES__METRICS__ACCURACY__MIN="0.9999", TRAINING__WIDER_WINDOW="5")

    assert first["told"] == ["champion_changed"]
    assert same["told"] == []
    assert not tightened["promote"]["promoted"]
    assert tightened["told"] == ["champion_breaks_gate"]
    said = "the champion breaks a gate: accuracy"
    assert tightened["summary"].startswith(f"version 1 stays champion; {said}")
    assert said in tightened["page"]
    assert "this very model already is the champion" in tightened["page"]
