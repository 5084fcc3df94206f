"""Who becomes champion when several look at once, when a process is killed, or a person steps in.

Most of it needs no model: versions are registered by hand, and what the champion would score is
given.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sandbox
from flight_delays import pipeline
from flight_delays.core import registry, tracking
from flight_delays.core.errors import ChampionMoved, NoChampion
from flight_delays.core.outcomes import Decision, Verdict
from flight_delays.core.refs import CandidateRef, EvaluationRef, FeaturesRef, PromotionRef, Run
from flight_delays.stages import evaluate as evaluating
from flight_delays.stages.evaluate import Present
from flight_delays.stages.promote import promote
from flight_delays.stages.start import start

Inbox = Callable[[], list[dict[str, Any]]]
PRIMARY = sandbox.PRIMARY
MUCH_BETTER = {"GATES__MIN_IMPROVEMENT": "0.5"}


class Killed(BaseException):
    """Stands for the end of the process."""


def version(name: str) -> int:
    """Register a version that was trained to an end of that name; returns its number."""
    tags = {registry.FINGERPRINT_TAG: name, "candidate": name}
    if not registry.registered():
        tracking.client().create_registered_model(registry.model_name())
    made = tracking.client().create_model_version(registry.model_name(), "file:///no", tags=tags)
    return int(made.version)


def evaluation(
    name: str, against: int | None, decision: Decision = "promote", score: float = 0.9
) -> EvaluationRef:
    """Return the evaluation of the candidate with that fingerprint."""
    return EvaluationRef(
        uri="unused",
        features=FeaturesRef(
            uri="f", rows=1, fingerprint=name, dataset_fingerprint="d", window="wider"
        ),
        candidate=CandidateRef(
            candidate=name,
            tracking_run_id="child",
            model_uri="models:/none",
            score=score,
            params={},
            fingerprint=name,
            trained_until="2013-01-20",
            reference_uri="",
        ),
        metrics={PRIMARY: score},
        champion_version=against,
        verdict=Verdict(decision=decision),
    )


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Let champions score by their number on whatever rows there are; 0.1 unless it is set."""
    given: dict[int, float] = {}

    def measure(_: FeaturesRef) -> Present:
        champion = registry.version_of(registry.CHAMPION)
        if champion is None:
            return Present()
        return Present(champion, {PRIMARY: given.get(int(champion.version), 0.1)})

    monkeypatch.setattr(evaluating, "_measure_champion", measure)
    return given


@pytest.fixture
def run(tracked: Path) -> Run:
    """Return a run for promote alone."""
    return start("training", sandbox.PARTITION, key="by hand")


def notes_of(promotion: PromotionRef) -> list[str]:
    return [note.kind for note in promotion.verdict.notes]


def test_of_two_trainings_side_by_side_the_second_is_held_against_the_first(small: Path) -> None:
    """Both were evaluated while there was no champion, and neither beats the other by 0.5."""
    with sandbox.enter(small, sandbox.SMALL | MUCH_BETTER):
        runs = [start("training", day) for day in (sandbox.PARTITION, sandbox.day(3))]
        evaluated = [pipeline.train_and_evaluate(run, "normal") for run in runs]
        newer = promote(runs[1], evaluated[1])
        older = promote(runs[0], evaluated[0])

        assert [one.champion_version for one in evaluated] == [None, None]
        assert (newer.promoted, older.promoted) == (True, False)
        assert notes_of(older)[0] == "champion_moved"
        failed = [gate for gate in older.verdict.gates if not gate.passed]
        assert [(gate.against, gate.limit) for gate in failed] == [("champion", 0.5)]
        assert sandbox.registry() == sandbox.Registry(versions=[1], champion=1, previous=None)
        champion = registry.require_champion()
        assert champion.run_id == evaluated[1].candidate.tracking_run_id


@pytest.mark.usefixtures("scores")
def test_of_two_that_promote_at_the_same_moment_one_wins(tracked: Path, inbox: Inbox) -> None:
    with sandbox.enter(tracked, MUCH_BETTER):
        names = ["one", "two"]
        runs = [start("training", sandbox.PARTITION, key=name) for name in names]
        for name in names:
            version(name)
        done: list[PromotionRef] = []

        def promote_one(run: Run, name: str) -> None:
            done.append(promote(run, evaluation(name, None, score=0.55)))

        threads = [
            threading.Thread(target=promote_one, args=each)
            for each in zip(runs, names, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

        assert sorted(one.promoted for one in done) == [False, True]
        assert next(event["kind"] for event in inbox()) == "champion_changed"
        assert sandbox.registry().previous is None


def test_who_waits_for_the_lock_sees_the_champion_of_whoever_had_it(run: Run) -> None:
    first, second = version("first"), version("second")
    found: list[BaseException] = []

    def succeed() -> None:
        try:
            registry.succeed(second, None, "second")
        except ChampionMoved as moved:
            found.append(moved)

    waiting = threading.Thread(target=succeed)
    with registry._one_at_a_time():
        waiting.start()
        registry._move(first, None, "gates", "first")
    waiting.join(60)
    assert "is version 1 by now" in str(found[0])
    assert registry.versions() == (first, None)


def test_a_rollback_between_evaluate_and_promote_counts(run: Run, scores: dict[int, float]) -> None:
    """The challenger beats neither; it was held against the one that is no champion any more."""
    for name in ("old", "bad"):
        registry.promote(version(name))
    version("new")
    scores |= {1: 0.95}
    registry.rollback()
    promotion = promote(run, evaluation("new", against=2))
    assert not promotion.promoted
    assert notes_of(promotion)[0] == "champion_moved"
    assert "version 1 became champion since" in str(promotion.verdict.notes[0])
    assert sandbox.registry().champion == 1


def test_a_challenger_that_was_kept_back_is_promoted_if_the_better_champion_is_gone(
    run: Run, scores: dict[int, float]
) -> None:
    for name in ("old", "too good"):
        registry.promote(version(name))
    new = version("new")
    registry.rollback()
    assert promote(run, evaluation("new", against=2, decision="keep")).promoted
    assert registry.versions() == (new, 1)


@pytest.mark.parametrize("action", ["promote", "rollback"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_step_it_leaves_what_rollback_needs(
    run: Run, monkeypatch: pytest.MonkeyPatch, action: str, after: bool
) -> None:
    """However far it came, a rollback leads to the champion before the present one."""
    client = tracking.client()
    writes = ["set_model_version_tag", "set_registered_model_alias", "delete_model_version_tag"]
    step = 0
    while True:
        first, second, third = version("a"), version("b"), version("c")
        for one in (first, second):
            registry.promote(one)
        left = [step]

        def dies(original: Callable[..., Any], left: list[int] = left) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                if after and left[0] == 0:
                    original(*args, **kwargs)
                left[0] -= 1
                if left[0] < 0:
                    raise Killed
                return original(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for name in writes:
                patch.setattr(client, name, dies(getattr(client, name)))
            try:
                registry.succeed(third, second, "k") if action == "promote" else registry.rollback()
            except Killed:
                killed = True
            else:
                killed = False
        if not killed:
            break
        before = {third: second, second: first, first: second}
        present = registry.versions()[0]
        assert present is not None
        assert registry.rollback() == (before[present], present), f"step {step}"
        assert sandbox.registry().previous == present
        step += 1
    assert step >= 3


def test_a_promotion_that_was_killed_is_finished_by_a_rerun(
    run: Run, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.promote(version("old"))
    version("new")
    with monkeypatch.context() as patch:
        patch.setattr(registry, "_point_previous", lambda: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            promote(run, evaluation("new", against=1))
    assert (sandbox.registry().champion, sandbox.registry().previous) == (2, None)
    assert inbox() == []

    promotion = promote(run, evaluation("new", against=1))
    assert (promotion.promoted, promotion.previous_version) == (True, 1)
    assert sandbox.registry().previous == 1
    (event,) = inbox()
    assert event["kind"] == "champion_changed"
    assert "version 2 is champion; version 1 was; perhaps told before" in event["summary"]

    promote(run, evaluation("new", against=1))
    assert len(inbox()) == 1


def test_whoever_comes_next_tells_of_a_champion_that_nobody_was_told_of(
    run: Run, inbox: Inbox, scores: dict[int, float]
) -> None:
    registry.succeed(version("old"), None, "a run that was killed")
    version("worse")
    scores |= {1: 0.95}
    assert not promote(run, evaluation("worse", against=1, decision="keep")).promoted
    (event,) = inbox()
    assert event["summary"].startswith("old: version 1 is champion; the first one; perhaps told")


def test_what_a_person_rolled_back_is_not_promoted_by_a_rerun(run: Run, inbox: Inbox) -> None:
    registry.promote(version("old"))
    version("bad")
    promote(run, evaluation("bad", against=1))
    assert registry.rollback() == (1, 2)

    promotion = promote(run, evaluation("bad", against=1))
    assert not promotion.promoted
    assert notes_of(promotion) == ["withdrawn"]
    assert "version 2, which a person took back on" in str(promotion.verdict.notes[0])
    assert registry.versions() == (1, 2)
    assert len(inbox()) == 1

    registry.promote(2)
    assert registry.versions() == (2, 1)
    assert not registry.is_withdrawn(2)


def test_a_newer_version_that_a_person_replaced_by_an_older_one_stays_back(run: Run) -> None:
    registry.promote(version("old"))
    version("bad")
    promote(run, evaluation("bad", against=1))
    assert registry.promote(1) == 2
    assert notes_of(promote(run, evaluation("bad", against=1))) == ["withdrawn"]
    assert registry.versions() == (1, 2)
    assert registry.rollback() == (2, 1)
    assert not registry.is_withdrawn(2)


def test_an_older_version_that_a_person_replaced_by_a_newer_one_may_come_back(run: Run) -> None:
    for name in ("old", "new"):
        registry.promote(version(name))
    assert not registry.is_withdrawn(1)


def test_a_training_that_began_before_an_update_is_promoted_after_it(run: Run) -> None:
    version("new")
    stored: Any = evaluation("new", against=None).model_dump(mode="json")
    del stored["features"]
    assert promote(run, stored).promoted


def test_where_the_champion_moved_an_evaluation_of_older_code_is_to_be_made_again(
    run: Run,
) -> None:
    registry.promote(version("other"))
    stored: Any = evaluation("new", against=None).model_dump(mode="json")
    del stored["features"]
    with pytest.raises(ChampionMoved, match=r"older code made .*: run the training again"):
        promote(run, stored)


def test_a_later_run_with_the_same_model_does_not_bring_back_what_was_taken_back(
    small: Path,
) -> None:
    pipeline.execute("training", sandbox.PARTITION)
    registry.withdraw(1)
    registry.retire()
    again = pipeline.execute("training", sandbox.PARTITION)
    verdict = sandbox.result(again, "evaluate")["verdict"]
    assert verdict["decision"] == "keep"
    assert verdict["notes"][0]["kind"] == "withdrawn"
    assert sandbox.registry() == sandbox.Registry(versions=[1], champion=None, previous=None)


def test_a_champion_that_moves_again_and_again_ends_in_a_sentence(
    run: Run, scores: dict[int, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    version("new")

    def moved(*_: Any) -> bool:
        raise ChampionMoved("it moved")

    monkeypatch.setattr(registry, "succeed", moved)
    with pytest.raises(ChampionMoved, match="moved 5 times"):
        promote(run, evaluation("new", against=None))


def test_without_a_champion_before_there_is_nothing_to_put_back(run: Run) -> None:
    registry.promote(version("only"))
    with pytest.raises(NoChampion, match="no previous champion"):
        registry.rollback()
    # One that was deleted cannot come back either.
    registry.promote(version("second"))
    tracking.client().delete_model_version(registry.model_name(), "1")
    with pytest.raises(NoChampion, match="no previous champion"):
        registry.rollback()


def test_how_a_version_became_champion_is_kept_with_a_version_of_its_form(run: Run) -> None:
    registry.promote(version("one"))
    tag = json.loads(registry.require_champion().tags[registry.SUCCESSION_TAG])
    assert (tag["schema_version"], tag["why"], tag["replaces"]) == (1, "person", None)
