"""report: write down what became of a run and close it in MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..core import closing, optional, storage, tracking
from ..core.answers import MONITORING
from ..core.logs import get_logger
from ..core.refs import EvaluationRef, ReportRef, Run
from ..core.stage import stage
from ..interface import load_problem
from ..reporting.page import render
from ..reporting.summary import Summary, summarize

log = get_logger(__name__)


@stage
def report(run: Run, failed: Sequence[str] = ()) -> ReportRef:
    """Write the page of a finished run and close its MLflow run.

    The page is written before MLflow is called, so that a run that failed because of MLflow also
    has one.

    Args:
        run: The run, whatever became of it.
        failed: Stages the engine knows to have failed; a killed process leaves no record.
    """
    summary = summarize(run, failed, tracking.run_url(run.tracking_run_id))
    html = render(summary, load_problem().metrics.PRIMARY, _plots(summary.results.evaluate))
    path = storage.artifact_path("reports", run.pipeline, f"{run.partition}", f"{run.key}.html")
    uri = storage.write_text(path, html)
    try:
        tracking.log_metrics(run.tracking_run_id, _metrics(summary))
        tracking.log_report(run, html)
        tracking.finish(run, summary.status)
        if summary.failures:
            closing.close_children(run.tracking_run_id)
    except BaseException:
        summary = replace(summary, failures={**summary.failures, "report": None})
        raise
    finally:
        # The module exists only in projects that monitor their runs.
        if MONITORING == "prometheus":
            optional.load("reporting.prometheus").push(summary, load_problem().metrics.PRIMARY)
    log.info("report: %s", path)
    return ReportRef(
        uri=uri,
        tracking_url=summary.tracking_url,
        succeeded=not summary.failures,
        failed_stages=tuple(summary.failures),
    )


def _metrics(summary: Summary) -> dict[str, float]:
    seconds = {f"seconds.{record.label}": record.seconds for record in summary.records}
    return seconds | {f"rows.{label}": rows for label, rows in summary.rows.items()}


def _plots(evaluation: EvaluationRef | None) -> dict[str, str]:
    if evaluation is None:
        return {}
    scored = storage.read_parquet(f"{evaluation.uri}/predictions.parquet")
    return load_problem().metrics.plots(scored["target"], scored.drop("target"))
