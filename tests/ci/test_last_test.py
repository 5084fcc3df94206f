"""CI's own time: what has not begun when it is nearly over is not run, and named."""

from __future__ import annotations

import os
import subprocess
import sys

from ..support.template import ROOT

TEST = "tests/questions/test_questions.py"


def test_what_begins_too_late_is_not_run_and_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", TEST],
        cwd=ROOT,
        env={**os.environ, "LAST_TEST_BEGINS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "NOT RUN: the time of CI was over" in done.stdout
    assert f"\n{TEST}::" in done.stdout
    assert " passed" not in done.stdout
