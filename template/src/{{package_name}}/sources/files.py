"""One file per partition, or several, in a folder or at any fsspec address."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from typing import TYPE_CHECKING

from upath import UPath

from ..core import storage
from ..core.cadence import SNAPSHOT, Partition
from ..core.errors import BadInput, DataRejected, MissingPartitions, StillArriving
from ..core.outcomes import Violation
from ..core.settings import Data, Reference, Settings
from .arrival import MOST_LOOKS, growing, is_recent, is_settled, look
from .read import broken_file, is_cut, limit_bytes, limit_frame, parse, suffix_of, violation_of

if TYPE_CHECKING:
    import polars as pl


def address(place: Data | Reference) -> UPath:
    """Return where the data is, or a further table."""
    root = storage.resolve(place.source)
    options = {name: secret.get_secret_value() for name, secret in place.storage_options.items()}
    return UPath(root, **options) if options else root


class Files:
    """Files whose names say which partition they are of, see `[data] file`."""

    def __init__(self, settings: Settings) -> None:
        self._data, self._cadence = settings.data, settings.data.cadence
        self._folder = address(settings.data)

    def list_partitions(self) -> list[Partition]:
        """Return the partitions whose files are whole, oldest first."""
        return sorted(self._found(self._data.file).keys() - self._arriving())

    def is_arriving(self, partition: Partition) -> bool:
        """Return whether files of a partition are still being written, or lack their marker."""
        return partition in self._arriving()

    def snapshot(self, partition: Partition, folder: UPath) -> UPath:
        """Copy a partition byte for byte; several files become one. See `Source`."""
        contents = self._contents(partition)
        if not all(contents):
            raise _rejected(partition, "empty_file", "the file has no bytes")
        suffix = suffix_of(self._data.file)
        # The name is the content, so an existing file is the same file, if it is whole.
        if len(contents) > 1:
            target = folder / f"{storage.fingerprint(*contents)}.parquet"
            if not _opens(target):
                storage.write_parquet(target, _join(partition, suffix, contents))
        else:
            target = folder / f"{hashlib.sha256(contents[0]).hexdigest()[:16]}{suffix}"
            if not storage.has_size(target, len(contents[0])):
                storage.write_bytes(target, contents[0])
        return target

    def _arriving(self) -> set[Partition]:
        if self._data.marker:
            complete = self._found(self._data.marker_file)
            return set(self._found(self._data.file).keys() - complete.keys())
        if not storage.is_local(self._folder):
            return set()
        return growing(lambda: self._found(self._data.file), self._data.settle_seconds)

    def _contents(self, partition: Partition) -> list[bytes]:
        """Return the content of a partition's files, once they are whole.

        Waits a little for new files: until two looks are the same and no end is missing.
        """
        seconds = 0 if self._data.marker else self._data.settle_seconds
        if self._data.marker and not self._paths(partition, self._data.marker_file):
            raise StillArriving(f"partition {partition} has no {self._data.marker_file} yet")
        before = None
        for left in reversed(range(MOST_LOOKS if seconds else 1)):
            paths = self._paths(partition, self._data.file)
            if not paths:
                raise MissingPartitions(
                    f"'{self._data.address}' no longer holds partition {partition}"
                )
            seen = look(paths)
            if not seconds or is_settled(seen, before):
                contents = self._read(partition, paths)
                suffix = suffix_of(self._data.file)
                may_grow = left and is_recent(seen) and any(is_cut(one, suffix) for one in contents)
                if not may_grow and look(paths) == seen:
                    return contents
            before = seen
            time.sleep(seconds if left else 0)
        raise StillArriving(
            f"the files of partition {partition} at '{self._data.address}' are still being "
            "written: write them beside, then rename them into place, or try again later"
        )

    def _read(self, partition: Partition, paths: list[UPath]) -> list[bytes]:
        for path in paths:
            # Some programs write a folder under a file's name; a pipe would block.
            if storage.is_local(path) and not path.is_file():
                raise _rejected(partition, "unreadable_file", f"{path} is not a file")
            refuse_links_out(partition, path, self._folder)
        limit_bytes(sum(path.stat().st_size or 0 for path in paths))
        return [path.read_bytes() for path in paths]

    def _paths(self, partition: Partition, pattern: str) -> list[UPath]:
        name = pattern.replace("{partition}", partition)
        if "*" in name:
            return sorted(self._folder.glob(_glob_of(name)), key=str)
        path = self._folder / name
        # A dangling link also exists, and is not a file.
        return [path] if path.exists() or path.is_symlink() else []

    def _found(self, pattern: str) -> dict[Partition, list[UPath]]:
        """Return the partitions that have files of a pattern, and these."""
        found: dict[Partition, list[UPath]] = {}
        if not self._folder.exists():
            return found
        if "/" in pattern:
            entries = self._folder.glob(_glob_of(pattern.replace("{partition}", "*")))
        else:
            entries = self._folder.iterdir()
        root, names = self._folder.path.rstrip("/") + "/", self._names(pattern)
        for entry in entries:
            match = names.fullmatch(entry.path.removeprefix(root))
            # A file of 30 February is not a partition.
            with contextlib.suppress(BadInput):
                if match:
                    name = self._cadence.parse(match.groupdict().get("partition", SNAPSHOT))
                    found.setdefault(name, []).append(entry)
        return found

    def _names(self, pattern: str) -> re.Pattern[str]:
        first, *others = pattern.split("{partition}")
        text = _regex_of(first)
        for place, part in enumerate(others):
            text += "(?P=partition)" if place else f"(?P<partition>{self._cadence.pattern})"
            text += _regex_of(part)
        return re.compile(text, re.ASCII)


def _regex_of(pattern: str) -> str:
    return "[^/]*".join(map(re.escape, pattern.split("*")))


def _glob_of(pattern: str) -> str:
    # Only `*` is a wildcard.
    return re.sub(r"[?[]", r"[\g<0>]", pattern)


def refuse_links_out(partition: Partition, path: UPath, folder: UPath) -> None:
    """Refuse a file that a link leads to out of its source folder, which may itself be a link.

    Its content would be readable in every artefact.

    Raises:
        DataRejected: Names the link.
    """
    if not storage.is_local(path):
        return
    root, real = os.path.realpath(f"{folder}"), os.path.realpath(f"{path}")
    named = os.path.normpath(os.path.join(root, os.path.relpath(f"{path}", f"{folder}")))
    if real != named and os.path.commonpath([root, real]) != root:
        detail = f"{path} is a link to a file outside of {folder}: copy it, or set source to its"
        raise _rejected(partition, "link_out_of_source", f"{detail} real place")


def _opens(path: UPath) -> bool:
    """Return whether there is a complete Parquet file."""
    import polars as pl

    try:
        storage.read_parquet(str(path), [])
    except (FileNotFoundError, pl.exceptions.PolarsError):
        return False
    return True


def _join(partition: Partition, suffix: str, contents: list[bytes]) -> pl.DataFrame:
    """Return the rows of several files as one; a column that some lack is null there."""
    import polars as pl

    try:
        frames, size = [], 0.0
        for data in contents:
            frames.append(parse(data, suffix))
            limit_bytes(size := size + frames[-1].estimated_size())
        return limit_frame(pl.concat(frames, how="diagonal_relaxed"))
    except broken_file() as error:
        raise DataRejected(partition, [violation_of(error)]) from None


def _rejected(partition: Partition, check: str, detail: str) -> DataRejected:
    return DataRejected(partition, [Violation(check=check, detail=detail)])
