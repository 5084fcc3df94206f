"""Build cookiecutter.json: the questions of copier.yml that Cookiecutter asks.

Those are the names and all that offer choices. Copier answers the others with their defaults.

    python scripts/build_cookiecutter_json.py
"""

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "cookiecutter.json"

NAMES = ("project_name", "project_slug", "package_name")
# An answer that Copier will refuse must not name a folder elsewhere.
FOLDER = (
    '{% from "includes/questions.jinja" import check_slug %}'
    "{{ 'refused' if check_slug(cookiecutter.project_slug) else cookiecutter.project_slug }}"
)


def build() -> str:
    """Return the text of cookiecutter.json."""
    config = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
    defaults: dict[str, Any] = {}
    prompts: dict[str, Any] = {}
    multiselect: dict[str, list[str]] = {}
    for name, question in config.items():
        if name in NAMES:
            defaults[name] = translate(question["default"])
            prompts[name] = question["help"]
        elif not name.startswith("_") and "choices" in question:
            labels = labels_of(question["choices"])
            if question.get("multiselect"):
                # Cookiecutter has no such question: ask for each choice.
                multiselect[name] = list(labels)
                for choice, label in labels.items():
                    defaults[f"{name}_{choice}"] = choice in question["default"]
                    prompts[f"{name}_{choice}"] = f"{question['help']}. {label}"
            else:
                # Cookiecutter's default is the first choice.
                defaults[name] = sorted(labels, key=lambda choice: choice != question["default"])
                prompts[name] = {"__prompt__": question["help"], **labels}
    content = {
        **defaults,
        "__folder": FOLDER,
        "__prompts__": prompts,
        "_extensions": ["cookiecutter_extension.CopierMacros"],
        "_multiselect": multiselect,
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def translate(default: str) -> str:
    """Return a default's Jinja with the names that Cookiecutter gives to answers."""
    return re.sub(rf"\b({'|'.join(NAMES)})\b", r"cookiecutter.\1", default)


def labels_of(choices: list[str] | dict[str, str]) -> dict[str, str]:
    """Return what a person reads for each choice."""
    if isinstance(choices, list):
        return {choice: choice for choice in choices}
    return {choice: label for label, choice in choices.items()}


if __name__ == "__main__":
    TARGET.write_text(build(), encoding="utf-8")
