"""What older code has stored: champions of other features, references, predictions."""

from __future__ import annotations

import errno
import pickle
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow.artifacts
import polars as pl
import pytest
import sandbox
from example.domain import features as domain
from example.domain import schema
from flight_delays import pipeline
from flight_delays.cli import doctor
from flight_delays.cli.score_file import score_file
from flight_delays.core import registry, storage, stored_model, tracking
from flight_delays.core.errors import ChampionUnusable
from flight_delays.core.refs import FeaturesRef, MonitorRef, ScoresRef
from flight_delays.core.registry import require_champion
from flight_delays.core.stored_model import open_version
from flight_delays.interface import load_features, load_problem
from flight_delays.ml.metrics import regression
from flight_delays.stages.evaluate import Present, _measure_champion
from flight_delays.stages.monitor import live_metrics, monitor
from flight_delays.stages.score import columns_of_today, predict, predict_with, read_reference
from sandbox import Trained
from sklearn.dummy import DummyClassifier, DummyRegressor

Inbox = Callable[[], list[dict[str, Any]]]
DAY = "2013-02-05"
WAY_OUT = "Restore what it needs, train another one (`uv run poe run`), or put the one before back"


@pytest.fixture
def change(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that takes features away from the domain, adds some, or replaces some."""
    original = domain.features

    def apply(without: Sequence[str] = (), also: Sequence[str] = (), **made: pl.Expr) -> None:
        def features(rows: pl.DataFrame) -> pl.DataFrame:
            return original(rows).with_columns(**made).drop(without)

        def left(names: Sequence[str]) -> tuple[str, ...]:
            return tuple(name for name in names if name not in without)

        monkeypatch.setattr(domain, "NUMERIC", (*left(domain.NUMERIC), *also))
        monkeypatch.setattr(domain, "FEATURES", (*left(domain.FEATURES), *also))
        monkeypatch.setattr(domain, "STABLE_FEATURES", (*left(domain.STABLE_FEATURES), *also))
        monkeypatch.setattr(domain, "features", features)
        sandbox.clear_caches()

    return apply


def speed() -> pl.Expr:
    return (pl.col("distance") / (pl.col("scheduled_minutes") + 1)).cast(pl.Float32)


def refused(version: int, said: str) -> str:
    """Return a pattern of the sentence about a champion that cannot predict."""
    said = f"version {version}, the champion, cannot predict: {said}"
    return f"{re.escape(said)}.*{re.escape(WAY_OUT)}"


def test_after_a_feature_is_gone_scoring_refuses_and_training_decides_without_the_old_champion(
    small: Path, inbox: Inbox, change: Callable[..., None]
) -> None:
    pipeline.execute("training", sandbox.PARTITION)
    change(without=["pressure"])
    gone = "it was trained on 'pressure', which domain/features.py makes no more"
    with pytest.raises(ChampionUnusable, match=refused(1, gone)):
        pipeline.execute("inference", DAY)
    assert [(event["kind"], event["stage"]) for event in inbox()[1:]] == [("failure", "score")]
    assert gone in inbox()[-1]["error"]
    [check] = [one for one in doctor.probes() if one.name == "champion"]
    [answer] = doctor.ask(check, 300)
    assert not answer.ok
    assert gone in answer.detail

    # No improvement is asked for: there is nothing to compare with.
    with sandbox.enter(small, sandbox.SMALL | {"GATES__MIN_IMPROVEMENT": "0.9"}):
        run = pipeline.execute("training", sandbox.day(3))
        verdict = sandbox.result(run, "promote")["verdict"]
        assert verdict["decision"] == "promote"
        [note] = [one for one in verdict["notes"] if not one["classes"]]
        assert (note["kind"], note["version"]) == ("champion_not_comparable", 1)
        assert note["misfit"]["columns"] == ["pressure"]
        assert all(gate["against"] != "champion" for gate in verdict["gates"])
        page = storage.path_of(sandbox.result(run, "report")["uri"]).read_text()
        said = "version 1, the champion, is not comparable, so the absolute gates decide"
        assert said in page
        assert said in inbox()[-1]["summary"]
        assert "version 2 is champion; version 1 was" in inbox()[-1]["summary"]
        scored = pipeline.execute("inference", DAY)
        assert sandbox.result(scored, "score")["model_version"] == 2


def test_a_gate_that_fails_keeps_a_champion_that_cannot_predict_and_says_so(
    small: Path, inbox: Inbox, change: Callable[..., None]
) -> None:
    pipeline.execute("training", sandbox.PARTITION)
    change(without=["pressure"])
    wide = {"TRAINING__WIDER_WINDOW": "5"}
    with sandbox.enter(small, sandbox.SMALL | sandbox.OUT_OF_REACH | wide):
        run = pipeline.execute("training", sandbox.day(3))
        assert sandbox.result(run, "promote")["champion_version"] == 1
    assert inbox()[-1]["kind"] == "champion_unusable"
    assert "'pressure'" in inbox()[-1]["summary"]


def test_an_added_feature_is_said_and_everything_goes_on(
    trained: Trained, change: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    change(also=["speed"], speed=speed())
    run = pipeline.execute("inference", DAY)
    assert sandbox.result(run, "score")["rows"] == sandbox.sample(DAY).height
    found = MonitorRef.model_validate(sandbox.result(run, "monitor"))
    assert found.drift.not_compared == ("speed",)
    assert found.drift.stable_features == len(domain.STABLE_FEATURES) - 1
    said = "version 1 was trained on other features than FEATURES names: it does not know speed"
    assert caplog.text.count(said) == 1
    assert "Drift not measured" in storage.path_of(sandbox.result(run, "report")["uri"]).read_text()


def test_a_column_that_is_still_there_is_used_though_no_feature_is_named_after_it(
    trained: Trained,
    change: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = sandbox.result(pipeline.execute("inference", DAY), "score")["fingerprint"]
    for name in ("NUMERIC", "FEATURES"):
        left = tuple(one for one in getattr(domain, name) if one != "pressure")
        monkeypatch.setattr(domain, name, left)
    sandbox.clear_caches()
    run = pipeline.execute("inference", DAY)
    assert sandbox.result(run, "score")["fingerprint"] == expected
    assert "it also takes pressure" in caplog.text
    assert champion_of(trained).metrics == sandbox.result(trained.run, "evaluate")["metrics"]


def champion_of(trained: Trained) -> Present:
    """Return the champion as a training of today would measure it."""
    return _measure_champion(FeaturesRef.model_validate(sandbox.result(trained.run, "featurize")))


def test_text_where_numbers_were_learned_is_named(
    trained: Trained, change: Callable[..., None], tmp_path: Path
) -> None:
    change(pressure=pl.col("pressure").cast(pl.String))
    said = "it was trained on 'pressure' of another type"
    with pytest.raises(ChampionUnusable, match=refused(1, said)):
        pipeline.execute("inference", DAY)
    with pytest.raises(ChampionUnusable, match=refused(1, said)):
        score_file(sandbox.SAMPLE / f"{DAY}.parquet", tmp_path / "predictions.csv")


@pytest.mark.parametrize("name", ["model.pkl", "MLmodel"])
def test_a_champion_whose_files_are_gone_is_not_comparable(trained: Trained, name: str) -> None:
    file = Path(mlflow.artifacts.download_artifacts("models:/sandbox/1")) / name
    away = file.rename(file.with_suffix(".away"))
    try:
        with pytest.raises(ChampionUnusable, match=refused(1, "it cannot be loaded")):
            predict(pl.DataFrame(), require_champion())
        misfit = champion_of(trained).misfit
    finally:
        away.rename(file)
    assert misfit is not None
    assert misfit.kind == "not_loadable"


def test_a_champion_whose_bytes_have_changed_is_not_comparable(trained: Trained) -> None:
    file = Path(mlflow.artifacts.download_artifacts("models:/sandbox/1")) / "model.pkl"
    sound = file.read_bytes()
    # It loads, and nobody would see it.
    file.write_bytes(sound + b"\0")
    damaged = f"it cannot be loaded ({file} is not what was registered"
    try:
        with pytest.raises(ChampionUnusable, match=refused(1, damaged)):
            predict(pl.DataFrame(), require_champion())
        assert champion_of(trained).misfit
    finally:
        file.write_bytes(sound)


def test_an_equal_model_takes_the_place_of_one_whose_files_are_gone(small: Path) -> None:
    pipeline.execute("training", sandbox.PARTITION)
    shutil.rmtree(mlflow.artifacts.download_artifacts("models:/sandbox/1"))
    run = pipeline.execute("training", sandbox.PARTITION)
    assert sandbox.result(run, "promote")["promoted"]
    assert sandbox.registry() == sandbox.Registry(versions=[1, 2], champion=2, previous=1)
    assert pipeline.execute("inference", DAY)


# A class of the team's, which was there when a model was stored.
GONE = b"cexample.domain.features\nEncoderOfLastYear\n."


def test_a_class_of_the_teams_that_is_gone_is_named(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "load_model", lambda _: pickle.loads(GONE))
    misfit = champion_of(trained).misfit
    assert misfit is not None
    assert "Can't get attribute 'EncoderOfLastYear'" in misfit.detail


@pytest.mark.parametrize(
    ("estimator", "said"),
    [
        (lambda: fitted(DummyClassifier(), ["x", "y"]), "predicts x, y, none of which came true"),
        (lambda: fitted(DummyRegressor(), [1.5, 2.5]), "a classifier needs predict_proba"),
    ],
    ids=["other classes", "numbers"],
)
def test_a_champion_of_another_target_is_not_comparable(
    trained: Trained,
    monkeypatch: pytest.MonkeyPatch,
    estimator: Callable[[], Any],
    said: str,
) -> None:
    monkeypatch.setattr(registry, "load_model", lambda _: estimator())
    misfit = champion_of(trained).misfit
    assert misfit is not None
    assert said in f"{misfit}"


def test_classes_are_not_taken_for_numbers(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = load_problem().model_copy(update={"metrics": regression})
    monkeypatch.setattr("flight_delays.stages.score.load_problem", lambda: numbers)
    model = stored_model.StoredModel(4, fitted(DummyClassifier(), [0, 1]), {"x": None})
    with pytest.raises(ChampionUnusable, match="classes, where numbers are predicted now"):
        predict_with(model, pl.DataFrame({"x": [1.0]}))


def fitted(model: Any, target: list[Any]) -> Any:
    """Return a model that knows a target and nothing else."""
    return model.fit([[0.0]] * len(target), target)


@pytest.mark.parametrize("step", ["artifacts.download_artifacts", "sklearn.load_model"])
@pytest.mark.parametrize("error", [ConnectionError("reset"), OSError(errno.ENOSPC, "disk full")])
def test_a_network_or_disk_that_fails_makes_no_champion_unusable(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, step: str, error: OSError
) -> None:
    """Else one bad second would let a worse model through."""

    def fails(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(f"mlflow.{step}", fails)
    with pytest.raises(type(error)):
        open_version(require_champion(), load_features().names)


def test_features_that_cannot_do_without_rows_are_known_by_name(
    trained: Trained, change: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def features(rows: pl.DataFrame) -> pl.DataFrame:
        assert rows[0]
        return rows

    monkeypatch.setattr(domain, "features", features)
    sandbox.clear_caches()
    assert {*domain.FEATURES, *schema.KEY} <= columns_of_today().keys()


# --- monitoring ----------------------------------------------------------------------------------


def scored(run: Any) -> tuple[FeaturesRef, ScoresRef]:
    """Return what the monitor stage of a run was given."""
    return (
        FeaturesRef.model_validate(sandbox.result(run, "featurize")),
        ScoresRef.model_validate(sandbox.result(run, "score")),
    )


@pytest.mark.parametrize("tag", ["gone.parquet", None])
def test_without_the_reference_there_is_no_drift_and_the_run_goes_on(
    trained: Trained,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tag: str | None,
) -> None:
    run = pipeline.execute("inference", DAY)
    champion, client = require_champion(), tracking.client()
    tags = {**champion.tags, "reference_uri": tag and f"{trained.root}/{tag}"}
    changed = SimpleNamespace(version="1", tags={k: v for k, v in tags.items() if v})
    monkeypatch.setattr(client, "get_model_version", lambda *_: changed)
    found = monitor(run, *scored(run))
    assert found.drift.stable_features == 0
    assert not found.drift.exceeded
    assert found.drift.not_compared == domain.FEATURES
    assert caplog.text.count("drift is not measured of what the reference of version 1") == 1
    assert sandbox.PRIMARY in found.live_metrics


def test_drift_is_measured_of_what_an_older_reference_has(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = pipeline.execute("inference", DAY)
    older = read_reference(require_champion()).drop("pressure").with_columns(another=1)
    monkeypatch.setattr("flight_delays.stages.monitor.read_reference", lambda _: older)
    found = monitor(run, *scored(run))
    assert found.drift.not_compared == ("pressure",)


@pytest.mark.parametrize(
    ("older", "said"),
    [
        (lambda rows: rows.drop("flight"), "no flight"),
        (lambda rows: rows.with_columns(flight=pl.lit("UA 15")), "flight is String"),
        (lambda rows: rows.select(*schema.KEY, prediction=1.5), "classes none"),
        (lambda rows: rows.rename(lambda name: name.replace("ity_", "ity_of_")), "classes of_"),
    ],
    ids=["another key", "a key of another type", "numbers", "other classes"],
)
def test_predictions_of_older_code_are_left_out_and_named_once(
    trained: Trained,
    caplog: pytest.LogCaptureFixture,
    older: Callable[[pl.DataFrame], pl.DataFrame],
    said: str,
) -> None:
    before = [pipeline.execute("inference", f"2013-02-0{day}") for day in (4, 5)]
    features, scores = scored(before[1])
    files = storage.read_manifest(features.uri)
    window, names = storage.read_partitions(files), [file.partition for file in files]
    path = f"{storage.path_of(scored(before[0])[1].uri)}"
    good = pl.read_parquet(path)
    expected = live_metrics(window, ["2013-02-05"], scores)
    both = live_metrics(window, names, scores)
    older(good).write_parquet(path)
    caplog.clear()
    try:
        found = live_metrics(window, ["2013-02-04", "2013-02-05"], scores)
    finally:
        good.write_parquet(path)
    assert found == expected
    assert both != expected
    [line] = [one.message for one in caplog.records if "left out" in one.message]
    assert f"2013-02-04 ({said}" in line


def test_a_column_that_came_to_the_predictions_stops_no_measuring(trained: Trained) -> None:
    """Those stored before lack it, those stored after have it."""
    before = [pipeline.execute("inference", f"2013-02-0{day}") for day in (4, 5)]
    features, scores = scored(before[1])
    window = storage.read_partitions(storage.read_manifest(features.uri))
    days = ["2013-02-04", "2013-02-05"]
    expected = live_metrics(window, days, scores)
    path = f"{storage.path_of(scored(before[0])[1].uri)}"
    good = pl.read_parquet(path)
    good.with_columns(flight=pl.col("flight").cast(pl.Int64), note=pl.lit("x")).write_parquet(path)
    try:
        assert live_metrics(window, days, scores) == expected
    finally:
        good.write_parquet(path)
