"""Runs commands of a project in its own environment, each in a process forked from this one.

The imports, which take most of a small run's time, are made once. scripts/drills/ starts this
with the project's interpreter and its package, and speaks JSON lines with it:

    {"start": ARGUMENTS, "log": FILE, "variables": {}}   a process number, also that of its group
    {"wait": NUMBER, "seconds": S}                       its exit code, null where it still runs
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time

PRELOAD = (
    *("alembic.command", "dagster", "git", "httpx", "matplotlib.backends.backend_agg"),
    *("mlflow.pyfunc", "mlflow.tracing.provider", "opentelemetry.sdk.metrics", "pyarrow.parquet"),
    "sklearn.impute",
)


def main() -> None:
    """Answer until the input ends."""
    package = sys.argv[1]
    ours = ("orchestration.libraries", "pipeline", "cli.app", "cli.doctor")
    for name in (*PRELOAD, *(f"{package}.{module}" for module in ours)):
        importlib.import_module(name)
    _answer("ready")
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _answer(_wait(request["wait"], request["seconds"]))
        elif number := os.fork():
            # Either of the two may be first.
            os.setpgid(number, number)
            _answer(number)
        else:
            os.setpgid(0, 0)
            os.environ |= request["variables"]
            _become(package, request["start"], request["log"])
            return


def _become(package: str, arguments: list[str], log: str) -> None:
    """Be a command of the project, or the Python code that follows -c."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream, number in ((os.open(os.devnull, os.O_RDONLY), 0), (output, 1), (output, 2)):
        os.dup2(stream, number)
    if arguments[0] == "-c":
        exec(arguments[1], {})
        return
    sys.argv = [package, *arguments]
    importlib.import_module(f"{package}.cli.app").main()


def _wait(number: int, seconds: float) -> int | None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(number, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    return None


def _answer(value: object) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main()
