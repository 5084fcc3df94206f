"""What a file says, as a value that can be compared and in which text can be replaced."""

from __future__ import annotations

import ast
import json
import tomllib
from collections.abc import Callable
from typing import Any

import yaml

from .markdown import visible


def python_parts(source: str) -> tuple[list[str], str]:
    """Return the strings of a program, and the program without them."""
    tree = ast.parse(source)
    strings = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            strings.append(node.value)
            node.value = ""
    return strings, ast.dump(tree)


READERS: dict[str, Callable[[str], Any]] = {
    ".json": json.loads,
    ".md": visible,
    ".py": python_parts,
    ".toml": tomllib.loads,
    ".yaml": lambda text: list(yaml.safe_load_all(text)),
    ".yml": lambda text: list(yaml.safe_load_all(text)),
}
