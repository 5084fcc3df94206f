"""Questions of `doctor`, and the lines that it reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from .ports import listener, refusal
from .redact import presentable
from .settings import load_environment

PROCESS_SECONDS = 14.0
_LONGEST_DETAIL = 600


class Advice(Exception):
    """Raised by a probe when nothing is broken but something remains to be done."""


@dataclass(frozen=True)
class Check:
    """One line of the result; a check that passed and still has a `fix` is advice."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


@dataclass(frozen=True)
class Probe:
    """One question and how to fix a bad answer.

    Attributes:
        find: Returns what it found, or finished checks if it makes several; an exception means
            that the check failed.
    """

    name: str
    fix: str
    find: Callable[[], str | list[Check]]

    def checks(self) -> list[Check]:
        """Ask and return the answer, free of secrets; never raises."""
        try:
            found = self.find()
        except Advice as advice:
            return [Check(self.name, True, str(advice), self.fix)]
        except BaseException as error:
            detail = presentable(f"{type(error).__name__}: {error}").strip()
            return [Check(self.name, False, detail[:_LONGEST_DETAIL], self.fix)]
        return found if isinstance(found, list) else [Check(self.name, True, found)]


def port_probe(name: str, variable: str, default: int, health: str, answer: str) -> Probe:
    """Return a probe that asks whether a program's port is free or already served by it.

    Args:
        name: What the program is called.
        variable: Sets another port than the default.
        default: The port if the variable is not set.
        health: Path of the program's health page.
        answer: Text that only this page contains.
    """

    def find() -> str:
        import httpx

        load_environment()
        port = int(os.environ.get(variable, default))
        try:
            page = httpx.get(f"http://127.0.0.1:{port}{health}", timeout=3, trust_env=False).text
        except httpx.ConnectError:
            if refusal(port) is None:
                return f"port {port} is free"
            page = ""
        except httpx.HTTPError:
            page = ""
        if answer not in page:
            raise OSError(f"{listener(port)} listens on port {port}")
        return f"already running on port {port}"

    return Probe(name, f"stop that program, or set {variable} in .env to a free port", find)


def checks_of_process(module: str) -> list[Check]:
    """Return the checks that `python -m` a module prints as JSON in its last line.

    Engines read the environment and take over logging when they are imported.

    Raises:
        RuntimeError: The process failed; the message has its last lines.
        subprocess.TimeoutExpired: It took too long.
    """
    command = [sys.executable, "-m", module]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PROCESS_SECONDS, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip()[-400:])
    return [Check(**fields) for fields in json.loads(done.stdout.splitlines()[-1])]


def print_checks(checks: Iterable[Check]) -> None:
    """Print checks for `checks_of_process`."""
    print(json.dumps([asdict(check) for check in checks]))
