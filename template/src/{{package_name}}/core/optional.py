"""The only place that imports by name: parts of the project that depend on an answer."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from types import ModuleType

from .paths import project_root

PACKAGE = __name__.partition(".")[0]


def load(name: str) -> ModuleType:
    """Import a module of this project by its path in the package, like `reporting.prometheus`.

    $PIPELINE_DOMAIN names another package to take domain/ from: the project's own tests run on an
    example that no team changes.

    Raises:
        ModuleNotFoundError: This project has no such part.
    """
    room, _, module = name.partition(".")
    if room == "domain" and (elsewhere := os.environ.get("PIPELINE_DOMAIN")):
        return importlib.import_module(f"{elsewhere}.{module}")
    return importlib.import_module(f"{PACKAGE}.{name}")


def load_beside(name: str) -> ModuleType:
    """Import a module from a folder of the project beside src/."""
    root = str(project_root())
    if root not in sys.path:
        sys.path.insert(0, root)
    return importlib.import_module(name)


def names(folder: str) -> list[str]:
    """Return the names of the modules in a folder of the package, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(load(folder).__path__))


def folders(folder: str) -> list[str]:
    """Return the names of the folders with modules in a folder of the package, sorted."""
    return sorted(
        module.name for module in pkgutil.iter_modules(load(folder).__path__) if module.ispkg
    )
