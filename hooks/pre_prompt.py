"""Before Cookiecutter asks: find a Copier that can render, or stop with a sentence.

Cookiecutter runs this in a temporary copy of the repository.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

COPY = Path(__file__).resolve().parents[1]


def main() -> None:
    config = (COPY / "copier.yml").read_text(encoding="utf-8")
    (oldest,) = re.findall(r'^_min_copier_version: "(.+)"$', config, re.MULTILINE)
    command = find_copier(oldest)
    if not command:
        delete_copy()
        sys.exit(
            f"Copier {oldest} or newer renders this template, and it is not here: "
            "`pip install copier` or `pip install uv`, then try again."
        )
    (COPY / "hooks" / "copier.json").write_text(json.dumps(command))
    # Cookiecutter wants a folder with such a name; the project's own takes its place.
    (COPY / "{{ cookiecutter.__folder }}").mkdir(exist_ok=True)


def find_copier(oldest: str) -> list[str] | None:
    """Return a command that runs Copier `oldest` or newer, or None."""
    uvx = ["uvx", "--from", f"copier>={oldest}", "copier"]
    commands = [[sys.executable, "-m", "copier"], ["copier"], uvx]
    return next((command for command in commands if runs(command, oldest)), None)


def runs(command: list[str], oldest: str) -> bool:
    try:
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.returncode == 0 and numbers(done.stdout) >= numbers(oldest)


def numbers(text: str) -> list[int]:
    """Return the first dotted version in a text: [9, 19, 0]."""
    found = re.search(r"\d+(\.\d+)+", text)
    return [int(part) for part in found[0].split(".")] if found else []


def delete_copy() -> None:
    """Delete Cookiecutter's copy, which it leaves behind when it stops."""
    if re.fullmatch(r"cookiecutter[a-z0-9_]{8}", COPY.parent.name):
        shutil.rmtree(COPY.parent)


if __name__ == "__main__":
    main()
