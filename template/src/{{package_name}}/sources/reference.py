"""Further tables: `[data.reference.NAME]` for features to be made with, and `[data.labels]`."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import NamedTuple

import polars as pl

from ..core import storage
from ..core.errors import SettingsError
from ..core.logs import get_logger
from ..core.paths import project_root
from ..core.settings import Data, Reference, Settings
from ..interface import load_schema
from .conform import conform
from .database import connect, in_order, read_query
from .delta import open_table
from .files import address
from .read import broken_file, parse, suffix_of

log = get_logger(__name__)


class Content(NamedTuple):
    """A table's content, and a digest that changes with it."""

    digest: str
    rows: pl.DataFrame


Opened = tuple[str, Callable[[], pl.DataFrame]]

# The last content of each table that was read in this process, and whether its types were guessed.
_READ: dict[tuple[str, bool], Content] = {}


def load_references(settings: Settings) -> dict[str, pl.DataFrame]:
    """Read the reference tables, by name; one whose content is known is not read again.

    Raises:
        SettingsError: A table is missing or cannot be read; names the table and where it should be.
    """
    return {name: _reference(name, settings).rows for name in settings.data.reference}


def reference_fingerprint(settings: Settings) -> str:
    """Return what changes with the content of any reference table; raises like the above."""
    names = sorted(settings.data.reference)
    return storage.fingerprint(*(f"{name}:{_reference(name, settings).digest}" for name in names))


def load_labels(settings: Settings) -> Content | None:
    """Read the labels that come in a separate table, in the contract's types; None without any.

    Raises:
        SettingsError: It cannot be read, lacks a column of KEY or the LABEL, holds other types, or
            two labels for one KEY.
    """
    if settings.data.labels is None:
        return None
    schema, source = load_schema(), settings.data.labels.address
    if not schema.key:
        raise SettingsError(
            "[data.labels] needs KEY in domain/schema.py, which labels are joined on"
        )
    names = [*schema.key, schema.label]
    digest, rows = _load("labels", settings.data.labels, settings, guess=False)
    if lacking := [name for name in names if name not in rows.columns]:
        raise SettingsError(f"the labels at {source} have no column '{lacking[0]}'")
    types = {name: schema.types[name] for name in names}
    made = conform(rows.select(names), types)
    for failed in made.failures:
        name = failed["column"][0]
        first = rows[name][failed["index"][0]]
        raise SettingsError(
            f"the labels at {source} hold '{first}' as '{name}', which is {types[name]} in the "
            f"contract (rows like that: {failed.height})"
        )
    if wrong := [name for name in names if made.rows.schema[name] != types[name]]:
        held, wanted = rows.schema[wrong[0]], types[wrong[0]]
        raise SettingsError(
            f"column '{wrong[0]}' of the labels at {source} is {held}, not {wanted}"
        )
    labels = made.rows.drop_nulls(names)
    if twice := labels.height - labels.n_unique(list(schema.key)):
        raise SettingsError(f"{twice} of the labels at {source} are there twice for one KEY")
    return Content(digest, labels)


def _reference(name: str, settings: Settings) -> Content:
    return _load(f"reference table '{name}'", settings.data.reference[name], settings, guess=True)


def _load(what: str, table: Reference, settings: Settings, *, guess: bool) -> Content:
    try:
        digest, read = _OPENED[table.kind](table, settings, guess)
        place = f"{table.source} {table.query}", guess
        if place not in _READ or _READ[place].digest != digest:
            _READ[place] = Content(digest, read())
            log.info("%s: %d rows, fingerprint %s", what, _READ[place].rows.height, digest)
    except (*broken_file(), OSError, SettingsError) as error:
        raise SettingsError(f"{what} at {table.address}: {error}") from error
    return _READ[place]


def _file(table: Reference, settings: Settings, guess: bool) -> Opened:
    path = address(_beside(table, settings.data))
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()[:16]
    return digest, lambda: parse(data, suffix_of(path.name), guess=guess)


def _sql(table: Reference, settings: Settings, guess: bool) -> Opened:
    query = table.query.strip().rstrip(";")
    with connect(table.source, project_root(), settings.data.time_zone) as connection:
        rows = in_order(read_query(connection, query), query)
    stream = io.BytesIO()
    rows.write_parquet(stream)
    return hashlib.sha256(stream.getbuffer()).hexdigest()[:16], lambda: rows


def _delta(table: Reference, settings: Settings, guess: bool) -> Opened:
    opened = open_table(_beside(table, settings.data))
    if opened is None:
        raise FileNotFoundError("there is no Delta table")
    version = f"{opened.metadata().id}:{opened.version()}"
    return storage.fingerprint(version), lambda: pl.scan_delta(opened).collect()


# Each returns a value that changes with the content, and a function to read it.
_OPENED: dict[str, Callable[[Reference, Settings, bool], Opened]] = {
    "file": _file,
    "sql": _sql,
    "delta": _delta,
}


def _beside(table: Reference, data: Data) -> Reference:
    """Return a table, with the data's storage options if it has none and the same protocol."""
    if table.storage_options or not data.storage_options:
        return table
    if address(table).protocol != address(data).protocol:
        return table
    return table.model_copy(update={"storage_options": data.storage_options})
