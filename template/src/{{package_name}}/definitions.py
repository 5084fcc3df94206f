"""Dagster's way in: the assets of both pipelines, and what starts, checks and reports them."""

import dagster as dg

from .defs import inference, jobs, training
from .defs.common import SOURCE, References
from .defs.schedules import schedules
from .defs.sensors import sensors
from .orchestration.dagster.local import executor

defs = dg.Definitions(
    assets=[SOURCE, training.CHAMPION, *training.assets, *inference.assets],
    jobs=[jobs.training, jobs.inference, jobs.report],
    schedules=schedules,
    sensors=sensors,
    executor=executor(),
    resources={"io_manager": References()},
)


def training_job() -> dg.JobDefinition:
    """Return the training job, in the form that another process can build again."""
    return defs.resolve_job_def("training")


def inference_job() -> dg.JobDefinition:
    """Return the inference job, in the form that another process can build again."""
    return defs.resolve_job_def("inference")


def report_job() -> dg.JobDefinition:
    """Return the report job, its step forked from the process that the run before has loaded."""
    return defs.resolve_job_def("report").with_executor_def(executor())
