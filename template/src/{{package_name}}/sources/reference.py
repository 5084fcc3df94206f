"""Further tables: `[data.reference.NAME]` for features to be made with, and `[data.labels]`."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import polars as pl
from upath import UPath

from ..core import storage
from ..core.errors import SettingsError
from ..core.logs import get_logger
from ..core.settings import Data, Reference, Settings
from ..interface import load_schema
from .conform import conform
from .files import address
from .read import broken_file, parse, suffix_of

log = get_logger(__name__)


class Content(NamedTuple):
    """What a file holds, and what changes with it."""

    digest: str
    rows: pl.DataFrame


# The last content of each file that was read in this process, and whether its types were guessed.
_READ: dict[tuple[str, bool], Content] = {}


def load_references(settings: Settings) -> dict[str, pl.DataFrame]:
    """Read the reference tables, by name; one whose content is known is not read again.

    Raises:
        SettingsError: A file is missing or cannot be read; names the table and the file.
    """
    return {name: _reference(name, settings).rows for name in settings.data.reference}


def reference_fingerprint(settings: Settings) -> str:
    """Return what changes with the content of any reference table; raises like the above."""
    names = sorted(settings.data.reference)
    return storage.fingerprint(*(f"{name}:{_reference(name, settings).digest}" for name in names))


def load_labels(settings: Settings) -> Content | None:
    """Read the labels that come in a table of their own, in the contract's types; None without any.

    Raises:
        SettingsError: It cannot be read, lacks a column of KEY or the LABEL, holds other types, or
            two labels for one KEY.
    """
    if settings.data.labels is None:
        return None
    schema, source = load_schema(), settings.data.labels.source
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
    path = _address(table, settings.data)
    try:
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()[:16]
        known = _READ.get((str(path), guess))
        if known is None or known.digest != digest:
            rows = parse(data, suffix_of(path.name), guess=guess)
            log.info("%s: %d rows, fingerprint %s", what, rows.height, digest)
            known = _READ[str(path), guess] = Content(digest, rows)
    except (*broken_file(), OSError) as error:
        raise SettingsError(f"{what} at {path}: {error}") from error
    return known


def _address(table: Reference, data: Data) -> UPath:
    """Return where a table is; without options of its own, it is opened as the data beside it."""
    path = address(table)
    if table.storage_options or not data.storage_options:
        return path
    beside = address(data)
    return UPath(path, **beside.storage_options) if path.protocol == beside.protocol else path
