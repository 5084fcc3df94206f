"""One file per partition, in a folder or at any fsspec address."""

from __future__ import annotations

import contextlib
import re
from datetime import date

from upath import UPath

from ..core import storage
from ..core.errors import MissingPartitions
from ..core.settings import Settings


def folder(settings: Settings) -> UPath:
    """Return where the partitions are."""
    root = storage.resolve(settings.data.source)
    secrets = settings.data.storage_options.items()
    options = {name: secret.get_secret_value() for name, secret in secrets}
    return UPath(root, **options) if options else root


def partition_path(settings: Settings, partition: date) -> UPath:
    """Return where the source keeps a partition."""
    return folder(settings) / settings.data.file.replace("{partition}", f"{partition}")


def list_partitions(settings: Settings) -> list[date]:
    """Return the partitions that the source holds, oldest first."""
    source = folder(settings)
    before, after = (re.escape(part) for part in settings.data.file.split("{partition}", 1))
    pattern = re.compile(rf"{before}(\d{{4}}-\d{{2}}-\d{{2}}){after}")
    if not source.exists():
        return []
    days = []
    for entry in source.iterdir():
        # A file of 30 February is no partition.
        with contextlib.suppress(ValueError):
            if match := pattern.fullmatch(entry.name):
                days.append(date.fromisoformat(match[1]))
    return sorted(days)


def require_partitions(settings: Settings) -> list[date]:
    """Return the partitions that the source holds, oldest first, one or more.

    Raises:
        MissingPartitions: The source holds none.
    """
    partitions = list_partitions(settings)
    if not partitions:
        raise MissingPartitions(
            f"no partition at '{settings.data.source}' matches '{settings.data.file}': "
            "check [data] in config/pipeline.toml"
        )
    return partitions


def newest_partition(settings: Settings) -> date:
    """Return the newest partition of the source; raises like `require_partitions`."""
    return require_partitions(settings)[-1]
