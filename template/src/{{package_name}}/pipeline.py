"""The two pipelines in plain Python, run in one process; each engine's graph mirrors these.

- training: start, ingest, validate, featurize, train (one per candidate, side by side), select,
  evaluate, promote or once more with a wider window, report
- inference: start, ingest, validate, featurize, score, monitor, report

After validate, promote and score, the team's own steps in domain/steps.py run one after another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from . import alerts
from .core import closing
from .core.cadence import Partition
from .core.ending import last_words, raise_signals
from .core.errors import Terminated
from .core.logs import get_logger
from .core.outcomes import Window
from .core.records import read_records
from .core.refs import CandidateRef, EvaluationRef, FeaturesRef, Pipeline, Ref, Run
from .core.stage import before_exit, end_running, on_timeout
from .interface import load_steps
from .stages.evaluate import evaluate
from .stages.featurize import featurize
from .stages.ingest import ingest
from .stages.monitor import monitor
from .stages.own_step import own_step
from .stages.promote import promote
from .stages.report import report
from .stages.score import score
from .stages.select import select
from .stages.start import start
from .stages.train import train
from .stages.validate import validate

log = get_logger(__name__)

on_timeout.add(alerts.send_failure_of)


def training(run: Run) -> None:
    """Train all candidates and promote the best if the gates hold."""
    evaluation = train_and_evaluate(run, "normal")
    if evaluation.verdict.decision == "retrain":
        evaluation = train_and_evaluate(run, "wider")
    take_own_steps(run, "promote", promote(run, evaluation))


def train_and_evaluate(run: Run, window: Window) -> EvaluationRef:
    """Take a window of partitions from raw data to an evaluated challenger."""
    raw = ingest(run, window)
    valid = validate(run, raw)
    take_own_steps(run, "validate", valid)
    features = featurize(run, valid)
    challenger = select(run, train_all(run, features))
    return evaluate(run, features, challenger)


def train_all(run: Run, features: FeaturesRef) -> list[CandidateRef]:
    """Train all candidates side by side."""
    names = run.settings.training.candidates
    pool, wait = ThreadPoolExecutor(max_workers=len(names)), True
    try:
        return list(pool.map(lambda name: train(run, features, name), names))
    except Terminated:
        # Nothing interrupts a thread: it ends with the process.
        wait = False
        raise
    finally:
        pool.shutdown(wait)


def inference(run: Run) -> None:
    """Score the partition with the champion, then check for drift and loss of performance."""
    raw = ingest(run)
    valid = validate(run, raw)
    take_own_steps(run, "validate", valid)
    features = featurize(run, valid)
    scores = score(run, features)
    take_own_steps(run, "score", scores)
    monitor(run, features, scores)


def take_own_steps(run: Run, stage: str, reference: Ref) -> None:
    """Run the steps of domain/steps.py that follow a stage on what it returned."""
    for name in load_steps().after(stage):
        own_step(name)(run, reference)


PIPELINES = {"training": training, "inference": inference}


def execute(pipeline: Pipeline, partition: Partition | None = None) -> Run:
    """Run a pipeline from start to report.

    A failure is alerted and reported, then raised; the report is written in any case.

    Raises:
        Terminated: A signal ended it. Candidates may still train in threads until the process ends.
    """
    closing.owner = closing.this_process()
    with raise_signals():
        try:
            run = start(pipeline, partition)
        except Terminated as error:
            where = {"pipeline": pipeline, "partition": partition}
            raise alerts.send_signal(error, "start", **where) from None
        except BaseException as error:
            alerts.send_failure(error, pipeline=pipeline, stage="start", partition=partition)
            raise
        try:
            _run_and_report(PIPELINES[pipeline], run)
        except Terminated as error:
            raise _terminate(run, error) from None
        return run


def _run_and_report(stages: Callable[[Run], None], run: Run) -> None:
    before_exit.append(report)
    try:
        stages(run)
    except Terminated:
        raise
    except BaseException as error:
        alerts.send_failure_of(run, failed_stage(run), error)
        # The error that ended the run counts, not one raised by its report.
        with contextlib.suppress(Exception):
            report(run)
        raise
    finally:
        before_exit.remove(report)
    try:
        report(run)
    except Exception as error:
        alerts.send_failure_of(run, "report", error)
        raise


def _terminate(run: Run, error: Terminated) -> Terminated:
    """Record, alert and report a run ended by a signal; returns it with the running stages.

    Ctrl-C sends no alert.
    """
    with last_words(error):
        end_running(error)
        labels = [one.label for one in read_records(run.key) if one.exit_code == error.exit_code]
        named = Terminated(error.number, ", ".join(labels))
        if not named.is_interactive:
            alerts.send_failure_of(run, named.stage or "between two stages", named)
        with contextlib.suppress(Exception):
            report(run)
    return named


def failed_stage(run: Run) -> str:
    """Return the label of the stage that failed last, or "start" where none left a record."""
    labels = [record.label for record in read_records(run.key) if record.error]
    return labels[-1] if labels else "start"
