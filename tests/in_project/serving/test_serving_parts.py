"""The service's parts without a server: rows, fast path, cache, time limit, settings."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandera.polars as pa
import polars as pl
import pytest
import sandbox
from example.domain import features as domain
from example.domain import problem
from example.domain.features import FEATURES, features
from fastapi import FastAPI
from flight_delays import interface
from flight_delays.core import registry
from flight_delays.core.errors import BadInput, SettingsError
from flight_delays.serving import rows
from flight_delays.serving.cache import (
    Cache,
    Description,
    NotCached,
    key_of,
    registry_address,
)
from flight_delays.serving.champion import Champion
from flight_delays.serving.fast_path import predictor
from flight_delays.serving.row_model import row_model
from flight_delays.serving.rows import as_json
from flight_delays.serving.service import create_app
from flight_delays.serving.settings import (
    ServingSettings,
    load_serving_settings,
)
from flight_delays.serving.telemetry import Telemetry
from flight_delays.stages.validate import check_rows
from pydantic import SecretStr, ValidationError
from sandbox import Trained
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

CONTRACT = pa.DataFrameSchema(
    {
        "name": pa.Column(pl.String, pa.Check.isin(["a", "b"])),
        "a code": pa.Column(
            pl.String,
            [pa.Check.str_matches("[A-Z]{2}$"), pa.Check.str_length(2, 2)],
            nullable=True,
        ),
        "count": pa.Column(pl.Int16, [pa.Check.gt(0), pa.Check.in_range(1, 9, include_max=False)]),
        "model_config": pa.Column(pl.Float32, pa.Check.le(0.1), nullable=True),
        "yes": pa.Column(pl.Boolean),
        "level": pa.Column(pl.Enum(["low", "high"])),
        "at": pa.Column(pl.Datetime("ns")),
        "late": pa.Column(pl.Int8, nullable=True),
    },
)
GOOD: dict[str, Any] = {
    "name": "a", "a code": "XY", "count": 3, "model_config": 0.1,
    "yes": True, "level": "low", "at": "2013-01-28T06:15:00",
}  # fmt: skip


def test_a_row_is_read_with_the_types_of_the_contract() -> None:
    model = row_model(CONTRACT, label="late")
    others = {"a code": None, "count": 7.0, "model_config": 0}
    rows = [model.type.model_validate_json(json.dumps(GOOD | more)) for more in ({}, others)]
    frame = model.frame(rows)
    assert model.complete
    assert frame.schema == {
        name: column.dtype.type for name, column in CONTRACT.columns.items() if name != "late"
    }
    assert frame["count"].to_list() == [3, 7]
    assert frame["at"].to_list() == [datetime(2013, 1, 28, 6, 15)] * 2
    CONTRACT.validate(frame.with_columns(late=pl.lit(None, pl.Int8)))


@pytest.mark.parametrize(
    "bad",
    [
        {"name": "c"},
        {"name": None},
        {"a code": "xXY"},
        {"a code": "XYZ"},
        {"count": 0},
        {"count": 9},
        {"count": 70_000},
        {"count": True},
        {"count": "3"},
        {"count": 2.5},
        {"model_config": 0.2},
        {"model_config": -1e39},
        {"model_config": float("nan")},
        {"yes": 1},
        {"level": "middle"},
        {"at": 1_359_353_700},
        {"at": "3013-01-28T06:15:00"},
        {"at": "2013-01-28T06:15:00Z"},
    ],
)
def test_a_bad_value_is_refused_by_its_field(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        row_model(CONTRACT, label="late").type.model_validate_json(json.dumps(GOOD | bad))
    assert {error["loc"][0] for error in caught.value.errors()} == bad.keys()


@pytest.mark.parametrize(
    "column",
    [
        pa.Column(pl.Int16, pa.Check(lambda data: data.lazyframe.select(pl.col(data.key) > 1))),
        pa.Column(pl.Int16, pa.Check(lambda value: value > 0, element_wise=True)),
        pa.Column(pl.Int16, pa.Check.isin([1, 2])),
        pa.Column(pl.Int16, pa.Check.gt(0.5)),
        pa.Column(pl.Int16, pa.Check.gt(0, raise_warning=True)),
        pa.Column(pl.Int16, pa.Check.gt(0, ignore_na=False), nullable=True),
        pa.Column(pl.Int16, [pa.Check.gt(0), pa.Check.gt(5)]),
        pa.Column(pl.Int16, unique=True),
        pa.Column(pl.Float32, pa.Check.lt(1)),
        pa.Column(pl.Date, pa.Check.gt(date(2013, 1, 1))),
        pa.Column(pl.String, pa.Check.str_contains("x")),
        pa.Column(pl.String, [pa.Check.str_length(1, 1), pa.Check.isin(["a", "bb"])]),
    ],
)
def test_rules_that_pydantic_might_judge_otherwise_are_left_to_pandera(column: pa.Column) -> None:
    assert not row_model(pa.DataFrameSchema({"x": column}), label="y").complete


def test_a_column_that_json_cannot_say_is_refused() -> None:
    contract = pa.DataFrameSchema({"x": pa.Column(pl.Binary)})
    with pytest.raises(BadInput, match="'x'"):
        row_model(contract, label="y")


@pytest.mark.parametrize("complete", [True, False])
def test_pandera_has_the_last_word(complete: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def check(frame: pl.DataFrame, *limits: Any, **options: Any) -> Any:
        asked.append(frame.height)
        return check_rows(frame, *limits, **options)

    monkeypatch.setattr(rows, "check_rows", check)
    monkeypatch.setattr(rows, "ROW", dataclasses.replace(rows.ROW, complete=complete))
    reader = rows.RowReader(5)
    good, other = as_json(sandbox.sample().head(2))
    reader.read(json.dumps({"rows": [good, other]}).encode())
    assert asked == ([] if complete else [2])
    with pytest.raises(rows.RowsRejected, match="2 violations"):
        reader.read(json.dumps({"rows": [good, good]}).encode())
    assert asked[-1] == 2


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


def through_pandas(model: Any, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the predictions of a pandas frame."""
    return problem.metrics.predict(model, rows.to_pandas())


def test_a_model_predicts_the_same_without_its_data_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    model, frame = pipeline()
    frame = frame.drop_nulls("color")
    expected = through_pandas(model, frame)
    predict = predictor(model, frame.head(3))
    monkeypatch.delattr(pl.DataFrame, "to_pandas")
    assert predict(frame).equals(expected)
    assert predict(frame.head(1)).equals(expected.head(1))


@pytest.mark.parametrize(
    ("more", "options", "change"),
    [
        ((), {"remainder": "passthrough"}, {}),
        ((("whole", "passthrough", ["n"]),), {}, {}),
        ((("whole", StandardScaler(), ["n", "x"]),), {}, {}),
        ((("place", StandardScaler(), [0]),), {}, {}),
        ((), {"transformer_weights": {"numbers": 2.0}}, {}),
        ((("named", FunctionTransformer(lambda part: part[["n"]] * 2), ["n"]),), {}, {}),
        ((), {}, {"color": pl.lit(None, pl.String)}),
        ((), {}, {"y": pl.col("y").cast(pl.Float64)}),
        ((), {}, {"color": pl.col("color").cast(pl.Categorical)}),
    ],
)
def test_what_must_go_through_a_data_frame_does(
    more: tuple[Any, ...], options: dict[str, Any], change: dict[str, pl.Expr]
) -> None:
    model, frame = pipeline(*more, **options)
    predict = predictor(model, frame.drop_nulls("color").head(3))
    frame = frame.with_columns(**change)
    assert predict(frame).equals(through_pandas(model, frame))


def test_the_champion_predicts_the_same_without_data_frames(trained: Trained) -> None:
    model = registry.load_model(f"models:/{registry.model_name()}/1")
    frame = features(sandbox.sample()).select(FEATURES)
    predict = predictor(model, frame.head(3))
    assert predict(frame).equals(through_pandas(model, frame))


@pytest.fixture
def app(trained: Trained) -> FastAPI:
    """Return an application that follows no registry."""
    return create_app(ServingSettings(timeout_seconds=0.5, token=SecretStr("")))


def served(predict: Any) -> Champion:
    """Return a champion that predicts as it is told."""
    now = datetime.now(UTC)
    description = Description(key="1", registry="", name="stub", version=7, created=now)
    return Champion(description, predict, now, "registry")


def ask(app: FastAPI, champion: Champion | None) -> httpx.Response:
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

    def predict(rows: pl.DataFrame) -> pl.DataFrame:
        free.wait(60)
        return pl.DataFrame({"prediction": [0] * rows.height})

    try:
        answer = ask(app, served(predict))
    finally:
        free.set()
    assert answer.status_code == 504
    assert answer.json()["detail"] == "the request took longer than 0.5 seconds"


def test_a_failed_prediction_shows_no_traceback(app: FastAPI) -> None:
    def predict(rows: pl.DataFrame) -> pl.DataFrame:
        raise RuntimeError("inside the model")

    answer = ask(app, served(predict))
    assert answer.status_code == 500
    assert "inside the model" not in answer.text
    good = served(lambda rows: pl.DataFrame({"prediction": ["late"] * rows.height}))
    assert ask(app, good).json()["model_version"] == 7


def test_a_champion_of_other_features_is_refused_in_a_sentence_and_a_good_one_stays(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = app.state.follower

    def without(rows: pl.DataFrame) -> pl.DataFrame:
        return features(rows).drop("pressure")

    left = tuple(name for name in FEATURES if name != "pressure")
    monkeypatch.setattr(domain, "FEATURES", left)
    monkeypatch.setattr(domain, "features", without)
    sandbox.clear_caches()
    follower.check()
    said = "version 1, the champion, cannot predict: it was trained on 'pressure', which"
    assert follower.last.error.startswith(said)
    answer = ask(app, None)
    assert answer.status_code == 503
    assert answer.json()["detail"].startswith(said)
    good = served(lambda rows: pl.DataFrame({"prediction": ["late"] * rows.height}))
    assert ask(app, good).json()["model_version"] == 7
    # Unless it was taken back meanwhile, as when another table was onboarded.
    with monkeypatch.context() as patch:
        patch.setattr(registry, "is_withdrawn", lambda version: version == 7)
        follower.check()
    assert follower.champion is None

    monkeypatch.setattr(domain, "features", features)
    sandbox.clear_caches()
    follower.champion, follower._failed = None, ("", 0.0, "")
    follower.check()
    served_now = follower.champion
    assert served_now.description.version == 1
    # Whoever takes a column away from rows later is told, too.
    monkeypatch.setattr(domain, "features", without)
    sandbox.clear_caches()
    answer = ask(app, served_now)
    assert (answer.status_code, answer.json()["detail"][: len(said)]) == (503, said)


def test_a_champion_whose_stored_bytes_have_changed_is_not_served(app: FastAPI) -> None:
    follower = app.state.follower
    # Of an earlier test, and sound.
    follower._cache.forget()
    stored = registry.download("models:/sandbox/1") / "model.pkl"
    sound = stored.read_bytes()
    # It loads, and nobody would see it.
    stored.write_bytes(sound + b"\0")
    try:
        follower.check()
    finally:
        stored.write_bytes(sound)
    assert follower.champion is None
    assert "model.pkl is not what was registered" in follower.last.error


def test_metrics_show_that_a_champion_was_retired(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower, shown = app.state.follower, Telemetry(app.state.follower)
    follower.check()
    assert b"\nserving_champion_version 1.0\n" in shown.page()
    monkeypatch.setattr(registry, "version_of", lambda _: None)
    follower.check()
    assert b"\nserving_champion_version NaN\n" in shown.page()


def test_a_champion_without_a_new_feature_is_served(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def added(rows: pl.DataFrame) -> pl.DataFrame:
        return features(rows).with_columns(speed=1.0)

    monkeypatch.setattr(domain, "features", added)
    monkeypatch.setattr(domain, "FEATURES", (*FEATURES, "speed"))
    sandbox.clear_caches()
    app.state.follower.check()
    assert ask(app, app.state.follower.champion).json()["model_version"] == 1
    assert caplog.text.count("it does not know speed") == 1


def test_features_that_look_back_are_not_served_from_rows_alone(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = interface.load_features().model_copy(update={"lookback": 3})
    monkeypatch.setattr("flight_delays.serving.prediction.load_features", lambda: features)

    answer = ask(app, served(lambda rows: np.ones(rows.height)))

    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("the features look back on the 3 partitions before")


def test_cache_loads_only_what_it_downloaded(trained: Trained, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    with pytest.raises(NotCached, match="no model"):
        cache.last_good()
    version = registry.require_champion()
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
