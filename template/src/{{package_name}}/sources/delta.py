"""A Delta table with a time column, read at one version."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import polars as pl
from upath import UPath

from ..core import storage
from ..core.errors import SettingsError
from ..core.logs import get_logger
from ..core.settings import Data, Reference
from .table import Table

if TYPE_CHECKING:
    from deltalake import DeltaTable

log = get_logger(__name__)


class Delta(Table):
    """A table, read at the version that was the newest when it was opened."""

    def _files(self) -> list[UPath]:
        return [UPath(self._address)] if self._table else []

    def _scan(self, files: list[UPath]) -> pl.LazyFrame:
        return pl.scan_delta(self._table or self._address)

    @property
    def _address(self) -> str:
        return str(storage.resolve(self._data.source))

    @functools.cached_property
    def _table(self) -> DeltaTable | None:
        return open_table(self._data)


def open_table(place: Data | Reference) -> DeltaTable | None:
    """Open a Delta table at its newest version; None if there is no table.

    Raises:
        SettingsError: The package is not installed.
    """
    try:
        from deltalake import DeltaTable
    except ModuleNotFoundError:
        raise SettingsError('kind = "delta" needs a package: `uv add deltalake`') from None
    address = str(storage.resolve(place.source))
    options = {k: secret.get_secret_value() for k, secret in place.storage_options.items()} or None
    if not DeltaTable.is_deltatable(address, options):
        return None
    table = DeltaTable(address, storage_options=options)
    log.info("version %d of the Delta table at %s", table.version(), place.address)
    return table
