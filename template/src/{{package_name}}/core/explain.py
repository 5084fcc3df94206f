"""System errors about disks, permissions and log-ins, as one sentence with the remedy."""

from __future__ import annotations

import errno
import getpass
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import NoAccess, PipelineError
from .mlflow_address import store_file, tracking_uri
from .paths import project_root
from .redact import redact

# What SQLite says instead of a number, without a file: stages write only to MLflow's.
_SQLITE = {
    "database or disk is full": errno.ENOSPC,
    "attempt to write a readonly database": errno.EROFS,
    "unable to open database file": errno.EACCES,
    "disk I/O error": errno.EIO,
    "database disk image is malformed": errno.EBADMSG,
}
# How libraries print an error number that they do not pass on.
_NUMBER = re.compile(r"\(os error (\d+)\)|\[Errno (\d+)\]")


@contextmanager
def explained() -> Iterator[None]:
    """Replace a system error with what a person needs to know.

    The original is not chained: for a full disk, engines and libraries log ten kilobytes.

    Raises:
        NoAccess: A disk is full or read-only, or a permission or log-in is missing.
    """
    try:
        yield
    except Exception as error:
        if known := explain(error):
            raise known from None
        raise


def explain(error: BaseException) -> NoAccess | None:
    """Return what a person needs to know about a system error; None for all others."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, PipelineError):
        if sentence := _of_system(cause) or _of_login(cause):
            return NoAccess(sentence)
        cause = cause.__cause__
    return None


def _of_system(error: BaseException) -> str | None:
    text = f"{error}"
    if isinstance(error, OSError) and error.errno:
        return _sentence(error.errno, error.filename2 or error.filename)
    for phrase, number in _SQLITE.items():
        if phrase in text:
            return _sentence(number, store_file())
    if type(error).__module__.startswith(("polars", "pyarrow")) and (found := _NUMBER.search(text)):
        return _sentence(int(found[1] or found[2]), None)
    return None


def _sentence(number: int, name: object) -> str | None:
    path = Path(os.fsdecode(name)) if isinstance(name, str | bytes | os.PathLike) else None
    what, mount = f"'{path}'" if path else "what it writes", _mount(path or project_root())
    if number == errno.ENOSPC:
        space = shutil.disk_usage(mount)
        free, total = (f"{size / 1e9:.3g} GB" for size in (space.free, space.total))
        return (
            f"no space left for {what} on the disk at {mount} ({free} of {total} free, or no "
            "inode): make room there, then run it again"
        )
    if number == errno.EDQUOT:
        return (
            f"the disk quota of user '{_user()}' at {mount} is used up, so {what} cannot be "
            "written: remove files of yours there or ask for more, then run it again"
        )
    if number == errno.EFBIG:
        return f"{what} would be larger than this process may write (`ulimit -f`): raise that limit"
    if number == errno.EIO:
        return (
            f"the disk at {mount} does not take or give {what}: it is beyond a quota, or damaged "
            "(see `dmesg`); repair it or set another folder"
        )
    if number == errno.EBADMSG:
        return f"{what} is damaged: put a copy of it back, or move it away to begin without it"
    if number == errno.EROFS:
        return (
            f"{what} cannot be written, since it or the disk at {mount} is read-only: make it "
            "writable (a disk with errors is mounted so: see `dmesg`), or set another folder"
        )
    # Without a name it may be a connection.
    if number in (errno.EACCES, errno.EPERM) and path:
        return (
            f"user '{_user()}' has no access to {what} on the disk at {mount}: see `ls -ld`, and "
            "give that user the right to it, or set another folder"
        )
    return None


def _mount(path: Path) -> Path:
    """Return where a path's disk is mounted."""
    place = path.absolute()
    while not place.is_mount() and place != place.parent:
        place = place.parent
    return place


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # In a container a number may have no name.
        return f"{os.getuid()}"


def _of_login(error: BaseException) -> str | None:
    """Return what to do if MLflow refuses the log-in."""
    status = getattr(error, "get_http_status_code", None)
    if not type(error).__module__.startswith("mlflow") or not callable(status):
        return None
    code = status()
    refused = re.search(r"error code (401|403)", f"{error}")
    if code not in (401, 403) and not refused:
        return None
    number = refused[1] if refused else code
    return (
        f"MLflow at {redact(tracking_uri())} refuses this log-in ({number}): the token or password "
        "is wrong or has expired, or lacks a right; set a new MLFLOW_TRACKING_TOKEN, or "
        "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, in .env"
    )
