"""The only place that imports by name: parts of the project that an answer adds or leaves out."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

PACKAGE = __name__.partition(".")[0]


def load(name: str) -> ModuleType:
    """Import a module of this project by its path in the package, like `reporting.prometheus`.

    Raises:
        ModuleNotFoundError: This project has no such part.
    """
    return importlib.import_module(f"{PACKAGE}.{name}")


def names(folder: str) -> list[str]:
    """Return the names of the modules in a folder of the package, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(load(folder).__path__))


def folders(folder: str) -> list[str]:
    """Return the names of the folders with modules in a folder of the package, sorted."""
    return sorted(
        module.name for module in pkgutil.iter_modules(load(folder).__path__) if module.ispkg
    )
