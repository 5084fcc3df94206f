"""Which heavy libraries a piece of code imports, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import sandbox

HEAVY = {
    *("matplotlib", "mlflow", "optuna", "pandas", "pandera", "polars"),
    *("pyarrow", "scipy", "sklearn", "xgboost"),
}


def heavy_imports(before: str, code: str, *more: str) -> set[str]:
    """Return the heavy libraries among what `code` imports.

    Args:
        before: Statements whose imports do not count, the engine's own.
        code: The statements to look at.
        more: Libraries that are heavy here, too.
    """
    program = (
        f"import sys\n{before}\nbefore = set(sys.modules)\n{code}\n"
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        # The one place where an engine's definitions are loaded with the team's own settings.
        env={**os.environ, "PIPELINE_HOME": str(sandbox.CHECKOUT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return {*HEAVY, *more} & set(done.stdout.splitlines()[-1].split())
