"""Whether files are whole, or still being written under their final names.

Only files on disks are looked at twice: other stores show a file once it is whole.
"""

from __future__ import annotations

import contextlib
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from upath import UPath

from ..core import storage

# Name, size and time of the last change of some files.
Look: TypeAlias = frozenset[tuple[str, int, float]]

# A file written longer ago is whole, or never will be.
RECENT_SECONDS = 120.0
# How many looks to wait for a file's end.
MOST_LOOKS = 15

# Files that were the same in two looks of this process.
_SETTLED: set[Look] = set()


def look(paths: Iterable[UPath]) -> Look:
    """Return what changes while files on a disk are being written."""
    found = []
    for path in paths:
        with contextlib.suppress(OSError):
            if storage.is_local(path) and stat.S_ISREG((seen := path.stat()).st_mode):
                found.append((str(path), seen.st_size, seen.st_mtime))
    return frozenset(found)


def is_recent(seen: Look) -> bool:
    """Return whether one of the files was written within the last minutes."""
    since = time.time() - RECENT_SECONDS
    return any(changed > since for _, _, changed in seen)


def is_settled(seen: Look, before: Look | None = None) -> bool:
    """Return whether files have stopped growing, as far as looks can show; `before` is the last."""
    if seen == before:
        _SETTLED.add(seen)
    return seen in _SETTLED or not is_recent(seen)


def growing(find: Callable[[], Mapping[str, Iterable[UPath]]], seconds: float) -> set[str]:
    """Return under which of their keys files changed between two looks; none where 0 seconds apart.

    If no file is recent, there is only one look.
    """
    if not seconds:
        return set()
    first = {key: look(paths) for key, paths in find().items()}
    unknown = [key for key, seen in first.items() if not is_settled(seen)]
    if not unknown:
        return set()
    time.sleep(seconds)
    again = find()
    return {key for key in unknown if not is_settled(look(again.get(key, ())), first[key])}
