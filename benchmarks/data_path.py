"""The data path of the generated project: its stages ingest, validate and featurize, one process.

    python data_path.py PARTITION

Runs in the project's environment; PIPELINE_DATA__SOURCE and PIPELINE_STORAGE__ROOT say where.
"""

import sys

from flight_delays.core.logs import setup_logging
from flight_delays.stages import run_stage


def main() -> None:
    """Run the three stages for the window up to a partition."""
    setup_logging("WARNING")
    # These stages log nothing to MLflow, so any run id will do.
    run = {
        "pipeline": "training",
        "partition": sys.argv[1],
        "key": "benchmark",
        "tracking_run_id": "none",
    }
    raw = run_stage("ingest", run)
    valid = run_stage("validate", run, raw)
    run_stage("featurize", run, valid)


if __name__ == "__main__":
    main()
