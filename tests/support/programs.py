"""Programs that came with the environment that runs the tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def checked(program: str, *arguments: str | Path) -> None:
    """Run a linter; what it finds is the test's failure."""
    command = [tool(program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def tool(program: str) -> str:
    """Return a program that came with the environment that runs the tests."""
    return str(Path(sys.executable).parent / program)
