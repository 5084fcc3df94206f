"""The two pipelines in plain Python, run in one process; each engine's graph mirrors these.

- training: start, ingest, validate, featurize, train (one a candidate, side by side), select,
  evaluate, promote or once more with a wider window, report
- inference: start, ingest, validate, featurize, score, monitor, report
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from datetime import date

from . import alerts
from .core import stage, tracking
from .core.logs import get_logger
from .core.refs import EvaluationRef, Pipeline, Run
from .core.settings import load_settings
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

stage.on_timeout.add(alerts.send_timeout)


def training(run: Run) -> None:
    """Train all candidates and promote the best if the gates hold."""
    evaluation = train_and_evaluate(run, attempt=1)
    if evaluation.decision == "retrain":
        evaluation = train_and_evaluate(run, attempt=2)
    promote(run, evaluation)


def train_and_evaluate(run: Run, attempt: int) -> EvaluationRef:
    """Take the window of an attempt from raw data to an evaluated challenger."""
    raw = ingest(run, attempt)
    valid = validate(run, raw)
    features = featurize(run, valid)
    names = load_settings().training.candidates
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
        alerts.send(
            alerts.Event.from_exception(
                error, pipeline=pipeline, stage="start", partition=partition
            )
        )
        raise
    stage.before_exit.append(report)
    try:
        PIPELINES[pipeline](run)
    except BaseException as error:
        alerts.send(failure_event(run, error))
        # The error that ended the run counts, not one of its report.
        with contextlib.suppress(Exception):
            report(run)
        raise
    finally:
        stage.before_exit.remove(report)
    try:
        report(run)
    except Exception as error:
        alerts.send(failure_event(run, error))
        raise
    return run


def failure_event(run: Run, error: BaseException) -> alerts.Event:
    """Return the alert for a run that failed in this process."""
    labels = [record.label for record in stage.read_records(run.key) if record.error]
    url = None
    # MLflow may be what failed.
    with contextlib.suppress(Exception):
        url = tracking.run_url(run.tracking_run_id)
    return alerts.Event.from_exception(
        error,
        pipeline=run.pipeline,
        stage=labels[-1] if labels else "start",
        partition=f"{run.partition}",
        run_key=run.key,
        tracking_url=url,
    )
