"""What copier.yml asks, and what a project was answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .template import ROOT

CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
QUESTIONS = {name: value for name, value in CONFIG.items() if not name.startswith("_")}
NAMES = {"project_slug": "some-slug", "package_name": "some_package"}


def choices(question: dict[str, Any]) -> list[str]:
    offered = question["choices"]
    return list(offered.values() if isinstance(offered, dict) else offered)


def read_answers(project: Path) -> dict[str, Any]:
    text = (project / ".copier-answers.yml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def read_project(project: Path) -> dict[str, bytes]:
    """Return the files of a project, without the record of its answers."""
    return {
        str(path.relative_to(project)): path.read_bytes()
        for path in project.rglob("*")
        if path.is_file() and path.name != ".copier-answers.yml"
    }
