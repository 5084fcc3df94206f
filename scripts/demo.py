"""Generate the default project and run its training pipeline on Airflow, alerts included.

uv run poe demo             into ./demo
uv run poe demo FOLDER      into a folder of your choice
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from copier import run_copy

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "template" / "tests"))

from receivers import mailbox, webhook  # noqa: E402


def main() -> int:
    """Generate, install, train; then show the alerts that arrived and what to do next."""
    parser = argparse.ArgumentParser(
        description="Generate the default project and run its training pipeline on Airflow.",
        epilog="example: uv run poe demo ~/flight-delays",
    )
    parser.add_argument("folder", nargs="?", default="demo", help="where to (default: %(default)s)")
    folder = Path(parser.parse_args().folder).resolve()
    if folder.exists() and any(folder.iterdir()):
        print(f"{folder} is not empty: remove it, or name another: uv run poe demo FOLDER")
        return 1
    started = time.monotonic()

    _say(f"1/3  copier copy --defaults → {folder}")
    run_copy(str(ROOT), folder, defaults=True, quiet=True, vcs_ref="HEAD")
    _say("2/3  uv sync (the first time it downloads about 250 MB)")
    subprocess.run(["uv", "sync", "--quiet"], cwd=folder, check=True, env=_environment())
    _say("3/3  uv run poe run: the training DAG on Airflow, alerts to servers on this machine")
    with webhook() as slack, mailbox() as mail:
        alerts = {
            "SLACK_WEBHOOK_URL": slack.url,
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": f"{mail.port}",
            "SMTP_SECURITY": "none",
            "SMTP_FROM": "pipeline@example.org",
            "SMTP_TO": "team@example.org",
        }
        done = subprocess.run(
            ["uv", "run", "poe", "run"], cwd=folder, check=False, env=_environment() | alerts
        )
    for body in slack.bodies:
        print(f"Slack got:  {json.loads(body)['text']}")
    for message in mail.messages:
        print(f"E-mail got: {message['Subject']}")
    if done.returncode == 0:
        _say(f"done in {time.monotonic() - started:.0f} s. Look around:")
        print(f"  cd {folder}\n  uv run poe up      # Airflow and MLflow in the browser")
        print("  uv run poe         # all commands")
    return done.returncode


def _environment() -> dict[str, str]:
    """Return the environment without this repository's own virtual environment."""
    return {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}


def _say(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
