"""The one seam to files: local folders by default, any fsspec address when workers share no disk.

Files are written whole or not at all: first under a temporary name, then moved into place. Only
their address below the artefact root is passed on and kept, so that the root may move.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel
from upath import UPath

from .cadence import Partition
from .paths import project_root
from .refs import Manifest, PartitionFile, Run
from .settings import load_settings

if TYPE_CHECKING:
    import polars as pl


def resolve(address: str) -> UPath:
    """Return an address as a path; a relative one starts at the project's root."""
    return UPath(address if _is_whole(address) else project_root() / address)


def artifact_path(*parts: str) -> UPath:
    """Return a path below the artefact root."""
    return resolve(load_settings().storage.root).joinpath(*parts)


def address_of(path: UPath) -> str:
    """Return a path as references hold it: relative to the artefact root if it is below that."""
    root = f"{artifact_path()}".rstrip("/") + "/"
    return f"{path}".removeprefix(root)


def path_of(address: str) -> UPath:
    """Return the path of what `address_of` returned."""
    return UPath(address) if _is_whole(address) else artifact_path(address)


def _is_whole(address: str) -> bool:
    """Return whether an address is absolute."""
    return "://" in address or os.path.isabs(address)


def fingerprint(*parts: str | bytes) -> str:
    """Return a short SHA-256 over all parts, independent of how they were split up."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:16]


def is_local(path: UPath) -> bool:
    """Return whether a path is on this machine."""
    return path.protocol in ("", "file", "local")


@contextmanager
def atomic(path: UPath) -> Iterator[Path]:
    """Yield a local file to write; when the block ends well, it becomes `path`.

    A block that raises leaves nothing. A killed process leaves a file in `.tmp` of the artefact
    root, never one under a final name; `sweep_temporary` removes it.
    """
    if is_local(path):
        folder = Path(str(artifact_path(".tmp"))) / f"{socket.gethostname()}-{os.getpid()}"
        folder.mkdir(parents=True, exist_ok=True)
    else:
        folder = Path(tempfile.gettempdir())
    handle, name = tempfile.mkstemp(dir=folder, suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        try:
            yield temporary
        except OSError as error:
            # A full disk is noticed while writing, where the name is not known.
            if error.errno and not error.filename:
                error.filename = str(path)
            raise
        path.parent.mkdir(parents=True, exist_ok=True)
        if is_local(path):
            temporary.chmod(0o644)
            os.replace(temporary, str(path))
        else:
            path.fs.put_file(str(temporary), path.path)
    finally:
        temporary.unlink(missing_ok=True)


def sweep_temporary() -> None:
    """Remove what killed processes left in the temporary folder.

    A folder of this host goes when its process is gone; one of another host after a day.
    """
    root = artifact_path(".tmp")
    if not is_local(root) or not root.is_dir():
        return
    for folder in Path(str(root)).iterdir():
        host, _, pid = folder.name.rpartition("-")
        ours = host == socket.gethostname()
        if not (is_alive(int(pid)) if ours else time.time() - folder.stat().st_mtime < 86_400):
            shutil.rmtree(folder, ignore_errors=True)


def is_alive(pid: int) -> bool:
    """Return whether a process of this machine exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def write_text(path: UPath, text: str) -> str:
    """Write a text file whole or not at all, and return its address."""
    return write_bytes(path, text.encode())


def write_model(path: UPath, model: BaseModel) -> str:
    """Write what is kept as JSON whole or not at all, and return its address."""
    return write_text(path, model.model_dump_json(indent=1))


def write_bytes(path: UPath, data: bytes) -> str:
    """Write a file whole or not at all, and return its address."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)
    return address_of(path)


def write_parquet(path: UPath, frame: pl.DataFrame) -> str:
    """Write a frame as Parquet whole or not at all, and return its address."""
    with atomic(path) as temporary:
        frame.write_parquet(temporary)
    return address_of(path)


def write_by_content(folder: UPath, frame: pl.DataFrame) -> UPath:
    """Write a frame as Parquet under a name made of its bytes, unless it is there already."""
    stream = io.BytesIO()
    frame.write_parquet(stream)
    data = stream.getvalue()
    path = folder / f"{hashlib.sha256(data).hexdigest()[:16]}.parquet"
    if not has_size(path, len(data)):
        write_bytes(path, data)
    return path


def has_size(path: UPath, size: int) -> bool:
    """Return whether there is a file of this size; a power cut may leave an empty one."""
    try:
        return bool(path.stat().st_size == size)
    except FileNotFoundError:
        return False


def write_partition(path: UPath, partition: Partition, frame: pl.DataFrame) -> PartitionFile:
    """Write one partition of a dataset as Parquet; the fingerprint is that of the file's bytes."""
    with atomic(path) as temporary:
        frame.write_parquet(temporary)
        with temporary.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    return PartitionFile(
        partition=partition, uri=address_of(path), rows=frame.height, fingerprint=digest
    )


def read_parquet(uri: str, columns: list[str] | None = None) -> pl.DataFrame:
    """Read one Parquet file from any address."""
    import polars as pl

    path = path_of(uri)
    if is_local(path):
        return pl.read_parquet(str(path), columns=columns)
    return pl.read_parquet(path.read_bytes(), columns=columns)


def read_manifest(uri: str) -> tuple[PartitionFile, ...]:
    """Read the list of a dataset's files, oldest partition first."""
    return Manifest.model_validate_json(path_of(uri).read_text()).files


def write_dataset(run: Run, kind: str, files: Sequence[PartitionFile]) -> tuple[str, str, int]:
    """Write the manifest of a dataset, under a name made of its content.

    Args:
        run: Whose dataset it is.
        kind: What its files hold, like raw, validated or features.
        files: Its files, oldest partition first.

    Returns:
        The manifest's address, the dataset's fingerprint and its number of rows.
    """
    total = fingerprint(*(f"{file.partition}:{file.fingerprint}" for file in files))
    path = artifact_path("datasets", f"{run.partition}", f"{kind}-{total}.json")
    uri = write_model(path, Manifest(files=tuple(files)))
    return uri, total, sum(file.rows for file in files)


def read_partitions(
    files: Sequence[PartitionFile], columns: list[str] | None = None, about: int | None = None
) -> pl.DataFrame:
    """Read the files of several partitions into one frame, in their order.

    With `about`, every file gives an even sample, so that this many rows or fewer are read,
    plus at most one per file. It bounds memory, whatever the size of the window.
    """
    import polars as pl

    frames = (read_parquet(file.uri, columns) for file in files)
    if about:
        step = sum(file.rows for file in files) // about + 1
        frames = (frame.gather_every(step) for frame in frames)
    return pl.concat(frames)
