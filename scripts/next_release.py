"""Print the newest version in CHANGELOG.md if it has no tag yet, and write its notes to a file.

python3 scripts/next_release.py notes.md
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def newest(changelog: str) -> tuple[str, str] | None:
    """Return the newest version of a changelog and its notes; None while there is none."""
    parts = re.split(r"^## (.+)$", changelog, flags=re.MULTILINE)[1:]
    for title, notes in zip(parts[::2], parts[1::2], strict=True):
        version = title.split()[0]
        if version != "Unreleased":
            return version, notes.strip() + "\n"
    return None


def main(notes_file: str) -> None:
    """Print the version that is to be released, or nothing."""
    found = newest((ROOT / "CHANGELOG.md").read_text())
    tags = subprocess.run(
        ["git", "tag", "--list"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    if found and f"v{found[0]}" not in tags:
        Path(notes_file).write_text(found[1])
        print(found[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
