"""The service's parts without a server: gate, batches, cache, time limit, settings."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandera.polars as pa
import polars as pl
import pytest
import sandbox
from fastapi import FastAPI
from flight_delays.core import tracking
from flight_delays.core.errors import SettingsError
from flight_delays.domain import problem
from flight_delays.domain.features import FEATURES, features
from flight_delays.serving.app import create_app
from flight_delays.serving.batcher import MOST_ROWS, Batcher
from flight_delays.serving.cache import (
    Cache,
    Description,
    NotCached,
    key_of,
    registry_address,
)
from flight_delays.serving.champion import Champion
from flight_delays.serving.direct import predictor
from flight_delays.serving.gate import gate
from flight_delays.serving.openapi import as_json
from flight_delays.serving.settings import (
    ServingSettings,
    load_serving_settings,
)
from numpy.typing import NDArray
from pydantic import SecretStr
from sandbox import Trained
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

CONTRACT = pa.DataFrameSchema(
    {
        "name": pa.Column(pl.String, [pa.Check.isin(["a", "b"]), pa.Check.str_length(1, 1)]),
        "code": pa.Column(pl.String, pa.Check.str_matches("[A-Z]{2}$"), nullable=True),
        "count": pa.Column(pl.Int16, [pa.Check.gt(0), pa.Check.in_range(1, 9)]),
        "share": pa.Column(pl.Float32, pa.Check.le(1, ignore_na=False), nullable=True),
    },
    unique=["name", "count"],
    strict="filter",
)
GOOD: dict[str, Any] = {"name": "a", "code": "XY", "count": 3, "share": 0.5}


def frame(*rows: dict[str, Any]) -> pl.DataFrame:
    schema = {"name": pl.String, "code": pl.String, "count": pl.Int16, "share": pl.Float32}
    return pl.DataFrame([{**GOOD, **row} for row in rows], schema=schema)


@pytest.mark.parametrize(
    "rows",
    [
        frame({}),
        frame({}, {"count": 4}, {"name": "b"}),
        frame({"code": None}),
        frame({"name": "c"}),
        frame({"name": None}),
        frame({"code": "xXY"}),
        frame({"count": 0}),
        frame({"count": None}),
        frame({"count": 10}, {}),
        frame({"share": 2.0}),
        frame({"share": None}),
        frame({"share": float("nan")}),
        frame({}, {}),
    ],
)
def test_gate_agrees_with_the_contract(rows: pl.DataFrame) -> None:
    keeps = gate(CONTRACT)
    assert keeps is not None
    try:
        CONTRACT.validate(rows, lazy=True)
    except pa.errors.SchemaErrors:
        assert not keeps(rows)
    else:
        assert keeps(rows)


@pytest.mark.parametrize(
    "check",
    [
        pa.Check(lambda value: value > 0, element_wise=True),
        pa.Check(lambda data: data.lazyframe.collect()[data.key].len() > 1),
    ],
)
def test_gate_leaves_what_is_no_expression_to_the_contract(check: pa.Check) -> None:
    assert gate(pa.DataFrameSchema({"count": pa.Column(pl.Int16, check)})) is None
    assert gate(pa.DataFrameSchema({"count": pa.Column(pl.Int16, unique=True)})) is None


def test_requests_that_wait_are_predicted_together() -> None:
    calls: list[int] = []
    entered, free = threading.Event(), threading.Event()

    def predict(rows: pl.DataFrame) -> NDArray[np.float64]:
        calls.append(rows.height)
        if len(calls) == 1:
            entered.set()
            assert free.wait(60)
        if rows["x"].max() == 6:
            raise ValueError("six")
        return rows["x"].to_numpy() * 2.0

    batcher = Batcher(predict)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(batcher, pl.DataFrame({"x": [1]}))
        assert entered.wait(60)
        others = [pool.submit(batcher, pl.DataFrame({"x": [x, x]})) for x in range(2, 7)]
        large = pool.submit(batcher, pl.DataFrame({"x": [0] * MOST_ROWS}))
        while len(batcher._waiting) < 6:
            threading.Event().wait(0.01)
        free.set()
        assert first.result(60).tolist() == [2]
        for x, other in zip(range(2, 6), others, strict=False):
            assert other.result(60).tolist() == [2 * x, 2 * x]
        with pytest.raises(ValueError, match="six"):
            others[-1].result(60)
        assert large.result(60).shape == (MOST_ROWS,)
    # The one that failed was tried with the others, and then each alone.
    assert sorted(calls) == [1, 2, 2, 2, 2, 2, 10, MOST_ROWS]


def pipeline(*more: Any, **options: Any) -> tuple[Any, pl.DataFrame]:
    """Return a fitted pipeline with a column transformer, and the rows it was fitted on."""
    random = np.random.default_rng(7)
    rows = pl.DataFrame(
        {
            "x": pl.Series(random.normal(size=200), dtype=pl.Float32),
            "y": pl.Series([None if n % 9 == 0 else n / 7 for n in range(200)], dtype=pl.Float32),
            "n": pl.Series(range(200), dtype=pl.Int16),
            "color": ["red", "green", "blue", None] * 50,
        }
    )
    numbers = ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["y", "x"])
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = ColumnTransformer([numbers, ("text", encoder, ["color"]), *more], **options)
    # A tree shows the smallest difference in rounding; it predicts for either kind of problem.
    model = make_pipeline(columns, DecisionTreeClassifier(random_state=7))
    return model.fit(rows.to_pandas(), [0, 1] * 100), rows


def through_pandas(model: Any, rows: pl.DataFrame) -> list[float]:
    """Return the predictions of a pandas frame."""
    values: list[float] = problem.metrics.predict(model, rows.to_pandas()).tolist()
    return values


def test_a_model_predicts_the_same_without_its_data_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = pipeline()
    rows = rows.drop_nulls("color")
    expected = through_pandas(model, rows)
    predict = predictor(model, rows.head(3))
    monkeypatch.delattr(pl.DataFrame, "to_pandas")
    assert predict(rows).tolist() == expected
    assert predict(rows.head(1)).tolist() == expected[:1]


@pytest.mark.parametrize(
    ("more", "options", "change"),
    [
        ((), {"remainder": "passthrough"}, {}),
        ((("whole", "passthrough", ["n"]),), {}, {}),
        ((("whole", StandardScaler(), ["n", "x"]),), {}, {}),
        ((("place", StandardScaler(), [0]),), {}, {}),
        ((), {"transformer_weights": {"numbers": 2.0}}, {}),
        ((), {}, {"color": pl.lit(None, pl.String)}),
        ((), {}, {"y": pl.col("y").cast(pl.Float64)}),
        ((), {}, {"color": pl.col("color").cast(pl.Categorical)}),
    ],
)
def test_what_must_go_through_a_data_frame_does(
    more: tuple[Any, ...], options: dict[str, Any], change: dict[str, pl.Expr]
) -> None:
    model, rows = pipeline(*more, **options)
    rows = rows.with_columns(**change)
    assert predictor(model)(rows).tolist() == through_pandas(model, rows)


def test_the_champion_predicts_the_same_without_data_frames(trained: Trained) -> None:
    model = tracking.load_model(f"models:/{tracking.model_name()}/1")
    rows = features(sandbox.sample()).select(FEATURES)
    assert predictor(model)(rows).tolist() == through_pandas(model, rows)


@pytest.fixture
def app(trained: Trained) -> FastAPI:
    """Return an application that follows no registry."""
    return create_app(ServingSettings(timeout_seconds=0.5, token=SecretStr("")))


def served(predict: Any) -> Champion:
    """Return a champion that predicts as it is told."""
    now = datetime.now(UTC)
    description = Description(key="1", registry="", name="stub", version=7, created=now)
    return Champion(description, predict, now, "registry")


def ask(app: FastAPI, champion: Champion) -> httpx.Response:
    """Ask for two rows of the example."""

    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            body = {"rows": as_json(sandbox.sample().head(2))}
            return await client.post("/predict", json=body)

    app.state.follower.champion = champion
    return asyncio.run(post())


def test_a_request_that_takes_too_long_is_given_up(app: FastAPI) -> None:
    free = threading.Event()

    def predict(rows: pl.DataFrame) -> NDArray[np.float64]:
        free.wait(60)
        return np.zeros(rows.height)

    try:
        answer = ask(app, served(predict))
    finally:
        free.set()
    assert answer.status_code == 504
    assert answer.json()["detail"] == "the request took longer than 0.5 seconds"


def test_a_failed_prediction_shows_no_traceback(app: FastAPI) -> None:
    def predict(rows: pl.DataFrame) -> NDArray[np.float64]:
        raise RuntimeError("inside the model")

    answer = ask(app, served(predict))
    assert answer.status_code == 500
    assert "inside the model" not in answer.text
    assert ask(app, served(lambda rows: np.ones(rows.height))).json()["model_version"] == 7


def test_cache_loads_only_what_it_downloaded(trained: Trained, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    with pytest.raises(NotCached, match="no model"):
        cache.last_good()
    version = tracking.require_champion()
    key = key_of(version)
    folder = cache.fetch(version, key)
    description = Description(
        key=key,
        registry=registry_address(),
        name=version.name,
        version=1,
        created=datetime.now(UTC),
    )
    cache.keep(description)
    assert cache.last_good() == (folder, description)
    assert folder.stat().st_mode & 0o777 == 0o700
    cache.keep(description.model_copy(update={"registry": "http://another"}))
    with pytest.raises(NotCached, match="another project or registry"):
        cache.last_good()
    cache.keep(description)
    (folder / "MLmodel").write_text("changed")
    with pytest.raises(NotCached, match="not what was downloaded"):
        cache.last_good()
    # What was changed is downloaded again.
    assert cache.fetch(version, key) == folder
    cache.keep(description)
    assert cache.last_good() == (folder, description)


def test_bad_settings_are_named_all_at_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVING_PORT", "eighty")
    monkeypatch.setenv("SERVING_MAX_ROWS", "0")
    with pytest.raises(SettingsError, match=r"SERVING_PORT(.|\n)*SERVING_MAX_ROWS"):
        load_serving_settings()
