"""Airflow's command line with the libraries of stages, for a scheduler or a Celery worker.

Their tasks are forks of them, and need not import for seconds before they begin.
"""

from __future__ import annotations

from airflow.__main__ import main

from .. import libraries as libraries

if __name__ == "__main__":
    main()  # type: ignore[no-untyped-call]
