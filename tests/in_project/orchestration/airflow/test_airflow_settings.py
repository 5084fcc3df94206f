"""A wrong setting: the DAGs are there all the same."""

from __future__ import annotations

import os
import subprocess
import sys

import sandbox

LIST = """
import sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
print(bag.import_errors, len(bag.dags))
"""


def test_with_a_wrong_setting_the_dags_are_there_so_that_a_task_can_tell() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIST, str(sandbox.CHECKOUT / "dags")],
        env={**os.environ, "PIPELINE_MONITORING__MAX_PSI": "-1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "{} 2"
