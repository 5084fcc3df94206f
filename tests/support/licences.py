"""The licences of what a generated project installs, and what docs/dependencies.md says of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from .template import ROOT

DOCUMENT = ROOT / "docs" / "dependencies.md"
# Under these a package binds nobody who uses it unchanged.
FAMILIES = {
    "Apache": "Apache",
    "BSD": "BSD",
    "CC0": "CC0",
    "CNRI": "CNRI",
    "ISC": r"\bISC",
    "MIT": r"\bMIT",
    "MPL": r"\bMPL|Mozilla",
    "PSF": "PSF|Python Software Foundation",
    "Unlicense": "Unlicense",
    "Zlib": "Zlib",
}


def installed(project: Path) -> dict[str, str]:
    """Return the licence of every package in a project's environment, as its metadata says it."""
    python = str(project / ".venv" / "bin" / "python")
    command = [sys.executable, "-m", "piplicenses", "--with-system", "--format=json"]
    done = subprocess.run(
        [*command, "--python", python], check=True, capture_output=True, text=True
    )
    return {
        re.sub(r"[-_.]+", "-", row["Name"].lower()): row["License"]
        for row in json.loads(done.stdout)
    }


def families(licence: str) -> set[str]:
    """Return what a licence consists of; a part that is in no family stands for itself."""
    parts = {part.strip() for part in re.split(r"[;()]| AND | OR ", licence)}
    return {family_of(part) for part in parts - {"", "DFSG approved"}}


def family_of(part: str) -> str:
    """Return the family of a licence, or the licence."""
    return next((name for name, words in FAMILIES.items() if re.search(words, part)), part)


def rows(heading: str = "") -> dict[str, list[str]]:
    """Return the tables of the document, or of a section: the other cells by package.

    Of a package that is in several tables, those of the first.
    """
    text = DOCUMENT.read_text(encoding="utf-8")
    if heading:
        text = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            first, *cells = (cell.strip() for cell in line.strip("|").split(" | "))
            for package in re.findall(r"`([^`]+)`", first):
                found.setdefault(package, cells)
    return found
