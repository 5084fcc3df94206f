"""Where a step's result is kept until the next step reads it."""

import json
from collections.abc import Sequence
from typing import Any, TypeAlias

import dagster as dg
from upath import UPath

from ..core import storage

# A stage's reference as JSON.
Reference: TypeAlias = Any


class References(dg.ConfigurableIOManager):
    """Keeps each asset's reference as JSON in the artefact store, where every worker reads it."""

    def handle_output(self, context: dg.OutputContext, obj: Reference) -> None:
        """Write a reference."""
        path = reference_path(context.asset_key.path, context.asset_partition_key)
        storage.write_text(path, json.dumps(obj))

    def load_input(self, context: dg.InputContext) -> Reference:
        """Read a reference; None, which the stage will name, where its asset was never made."""
        return read_reference(context.asset_key.path, context.asset_partition_key)


def reference_path(key: Sequence[str], partition: str) -> UPath:
    """Return where the reference of an asset's partition is kept."""
    return storage.artifact_path("outputs", *key, f"{partition}.json")


def read_reference(key: Sequence[str], partition: str) -> Reference:
    """Return the newest reference of an asset's partition, or None."""
    path = reference_path(key, partition)
    return json.loads(path.read_text()) if path.exists() else None


@dg.definitions
def defs() -> dg.Definitions:
    """Return the resources of all assets."""
    return dg.Definitions(resources={"io_manager": References()})
