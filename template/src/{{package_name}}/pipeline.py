"""The two pipelines in plain Python, run in one process; each engine's graph mirrors these.

- training: start, ingest, validate, featurize, train (one per candidate, side by side), select,
  evaluate, promote or once more with a wider window, report
- inference: start, ingest, validate, featurize, score, monitor, report
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from datetime import date

from . import alerts
from .core.logs import get_logger
from .core.outcomes import Window
from .core.records import read_records
from .core.refs import EvaluationRef, Pipeline, Run
from .core.stage import before_exit, on_timeout
from .stages.evaluate import evaluate
from .stages.featurize import featurize
from .stages.ingest import ingest
from .stages.monitor import monitor
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
    promote(run, evaluation)


def train_and_evaluate(run: Run, window: Window) -> EvaluationRef:
    """Take a window of partitions from raw data to an evaluated challenger."""
    raw = ingest(run, window)
    valid = validate(run, raw)
    features = featurize(run, valid)
    names = run.settings.training.candidates
    with ThreadPoolExecutor(max_workers=len(names)) as pool:
        candidates = list(pool.map(lambda name: train(run, features, name), names))
    challenger = select(run, candidates)
    return evaluate(run, features, challenger)


def inference(run: Run) -> None:
    """Score the partition with the champion, then look for drift and loss of performance."""
    raw = ingest(run)
    valid = validate(run, raw)
    features = featurize(run, valid)
    scores = score(run, features)
    monitor(run, features, scores)


PIPELINES = {"training": training, "inference": inference}


def execute(pipeline: Pipeline, partition: date | str | None = None) -> Run:
    """Run a pipeline from start to report.

    A failure is alerted and reported, then raised; the report is written whatever happened.
    """
    try:
        run = start(pipeline, partition)
    except BaseException as error:
        alerts.send_failure(error, pipeline=pipeline, stage="start", partition=partition)
        raise
    before_exit.append(report)
    try:
        PIPELINES[pipeline](run)
    except BaseException as error:
        alerts.send_failure_of(run, failed_stage(run), error)
        # The error that ended the run counts, not one of its report.
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
    return run


def failed_stage(run: Run) -> str:
    """Return the label of the stage that failed last, or "start" where none left a record."""
    labels = [record.label for record in read_records(run.key) if record.error]
    return labels[-1] if labels else "start"
