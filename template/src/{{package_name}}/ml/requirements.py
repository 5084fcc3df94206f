"""What must be installed to load a model, and which of this project's code it carries."""

from __future__ import annotations

import contextlib
import functools
import io
import pickletools
from importlib import metadata
from types import ModuleType
from typing import Any

import cloudpickle

from ..core.errors import BadInput

# Besides the model's parts: what reads its file, and the type of its rows.
ALWAYS = {"cloudpickle", "pandas"}
# How a pickle begins.
PICKLE = b"\x80"


def carry(*packages: ModuleType) -> None:
    """From now on, models carry the code of these packages, not references to it."""
    for package in packages:
        cloudpickle.register_pickle_by_value(package)


def requirements_of(model: Any) -> list[str]:
    """Return the distributions that a fitted model needs to be loaded, each with its version.

    They are those of the classes, functions and modules that it is made of.

    Raises:
        BadInput: It has a part from this project that models do not carry, or that a library
            pickles separately, where they cannot carry it.
    """
    writer = _Writer(io.BytesIO())
    writer.dump(model)
    carried = tuple(f"{name}." for name in cloudpickle.list_registry_pickle_by_value())
    needed = sorted(name for name in writer.modules if not f"{name}.".startswith(carried))
    ours = f"{__name__.partition('.')[0]}."
    if apart := sorted(name for name in writer.apart if f"{name}.".startswith((ours, *carried))):
        raise BadInput(
            f"a library pickles a part of the model from {apart[0]} apart, as a reference that "
            "only this project can follow: give the estimator a __getstate__ that returns all of it"
        )
    if left := [name for name in needed if f"{name}.".startswith(ours)]:
        raise BadInput(
            f"the model has a part from {left[0]}, which it cannot take along: move what a "
            "candidate is made of into domain/"
        )
    tops = {name.partition(".")[0] for name in needed} | ALWAYS
    names = {name for top in tops for name in _distributions().get(top, [])}
    # Package indexes do not know a local build's suffix, like +cpu.
    return sorted(f"{name}=={metadata.version(name).partition('+')[0]}" for name in names)


class _Writer(cloudpickle.Pickler):  # type: ignore[misc]
    """Notes the modules of all objects it writes, and those that nested pickles refer to."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self.modules: set[str] = set()
        self.apart: set[str] = set()

    def persistent_id(self, part: Any) -> None:
        """Note a part, and let it be written like any other."""
        if isinstance(part, bytes) and part[:1] == PICKLE:
            self.apart |= _modules_in(part)
        named = part if hasattr(part, "__qualname__") else type(part)
        name = part.__name__ if isinstance(part, ModuleType) else named.__module__
        self.modules.add(f"{name}")


def _modules_in(data: bytes) -> set[str]:
    """Return the modules that a pickle refers to."""
    found: set[str] = set()
    texts: list[str] = []
    # Other bytes may begin like a pickle.
    with contextlib.suppress(ValueError, IndexError):
        for opcode, argument, _ in pickletools.genops(data):
            if isinstance(argument, str):
                texts.append(argument)
            elif opcode.name == "STACK_GLOBAL":
                found.add(texts[-2])
    return found


@functools.cache
def _distributions() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())
