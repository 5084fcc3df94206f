"""`prune`: remove what is old and nothing needs; what stays leads to nothing that is gone."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from upath import UPath

from ..core import purge, registry, storage, tracking
from ..core.errors import StoreError
from ..core.records import StageRecord
from ..core.settings import load_settings, without_passwords

out = Console()

MLFLOW = "MLflow runs"
# What goes, each before what it leads to: a killed prune leaves nothing that leads nowhere.
# Other folders of the artefact root stay, like predictions.
ORDER = (
    *("runs", "outputs", "reports", MLFLOW, "monitoring", "evaluations", "validation", "datasets"),
    *("reference", "features", "features-unlabelled", "features-learned", "features-held-out"),
    *("quarantine", "validated", "raw"),
)
# What stays or goes with its run, and what names other files.
OF_RUN, LEADING = ("runs", "reports", MLFLOW), ("runs", "outputs", "datasets")
# How many names the path of a folder has that stays or goes as one.
DEPTH = {"runs": 2, "evaluations": 3}


@dataclass
class Thing:
    """What stays or goes as one.

    Attributes:
        name: Its run's key, or the fingerprint that references know it by.
        newest: When the last of it was written.
        files: Their addresses.
    """

    kind: str
    name: str
    newest: datetime
    size: int = 0
    files: list[str] = field(default_factory=list)


def prune(keep_days: int | None = None, dry_run: bool = False, as_json: bool = False) -> None:
    """Remove what is old and nothing needs, and show it.

    Args:
        keep_days: What is younger stays; None: as in the settings.
        dry_run: Only show what would go.
        as_json: Print one JSON object.

    Raises:
        StoreError: MLflow knows none of the runs that are stored, or cannot remove its own.
    """
    days = load_settings().storage.keep_days if keep_days is None else keep_days
    before = datetime.now(UTC) - timedelta(days=days)
    note = purge.why_space_stays()
    # What a prune that was killed has marked is not in the way where the space stays anyway.
    tracked = purge.tracked_runs(with_deleted=not note)
    going, broken = _find(before, tracked)
    if not dry_run:
        _remove(going, tracked, free_space=not note)
    rows = [
        _row(kind, things) for kind in ORDER if (things := [x for x in going if x.kind == kind])
    ]
    if as_json:
        told = {"dry_run": dry_run, "keep_days": days, "removed": rows, "left_alone": broken}
        print(json.dumps(told | {"note": note if rows else ""}))
        return
    _show(rows, f"{'would go' if dry_run else 'removed'}: older than {days} days")
    lines = [f"left alone, with its run: {address} cannot be read" for address in broken]
    for line in [*lines, *([note] if note and rows else [])]:
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def _find(before: datetime, tracked: Sequence[purge.TrackedRun]) -> tuple[list[Thing], list[str]]:
    """Return what goes, and the addresses of records that cannot be read."""
    running = [one for one in tracked if one.run.info.status == "RUNNING" and one.is_active]
    # What they have just written, and what they are about to reuse, is in no record yet.
    before = min([before, *(one.started for one in running)])
    stored = _stored()
    keys = {one.name for one in stored if one.kind == "runs"}
    if keys and keys.isdisjoint(one.key for one in tracked):
        raise StoreError(
            f"MLflow at {without_passwords(tracking.tracking_uri())} knows none of the {len(keys)} "
            "runs that are stored, so what is needed is not known: set MLFLOW_TRACKING_URI to the "
            "store that knows them"
        )
    things = [*stored, *(Thing(MLFLOW, one.key, one.ended, one.size) for one in tracked)]
    texts = _read(file for one in stored if one.kind in LEADING for file in one.files)
    broken = sorted(address for address, text in texts.items() if _is_broken(address, text))
    needed = _needed(tracked) | {one.key for one in running}
    needed |= {address.split("/")[1] for address in broken}
    needed |= {one.name for one in things if one.kind in OF_RUN and one.newest >= before}

    def stays(one: Thing) -> bool:
        is_reused = bool(running) and one.kind == "raw"
        return one.newest >= before or one.name in needed or is_reused

    unread = [one for one in stored if one.kind in LEADING]
    while kept := [one for one in unread if stays(one)]:
        unread = [one for one in unread if not stays(one)]
        needed |= {word for one in kept for file in one.files for word in _words(texts[file])}
    return [one for one in things if not stays(one)], broken


def _needed(tracked: Sequence[purge.TrackedRun]) -> set[str]:
    """Return the keys and fingerprints that the registry leads to, and the last runs' keys."""
    # Somebody may have registered a model under another name.
    versions = list(purge.pages(tracking.client().search_model_versions))
    registered = {one.run_id for one in versions} | {one.source for one in versions}
    needed = set()
    for one in tracked:
        names = {one.run.info.run_id, *(f"models:/{model.model_id}" for model in one.models)}
        needed |= {one.key} if names & registered else set()
    parents = sorted((one for one in tracked if not one.child), key=lambda one: one.started)
    done = [one for one in parents if one.run.info.status == "FINISHED" and one.is_active]
    needed |= {*{one.run.data.tags.get("pipeline.name"): one.key for one in done}.values()}
    needed |= {word for one in versions for tag in one.tags.values() for word in _words(tag)}
    successions = map(registry.succession_of, registry.registered())
    return needed | {one.run for one in successions if one and one.run}


def _stored() -> list[Thing]:
    """Return what there is below the artefact root."""
    root, found = storage.artifact_path(), dict[str, Thing]()
    for path, info in root.fs.find(root.path, detail=True).items():
        address = path.removeprefix(root.path).lstrip("/")
        kind, *_ = parts = address.split("/")
        if kind in ORDER:
            unit = "/".join(parts[: DEPTH.get(kind)])
            written = root.fs.modified(path)
            one = found.setdefault(unit, Thing(kind, _name(kind, unit), written))
            one.newest, one.size = max(one.newest, written), one.size + info["size"]
            one.files.append(address)
    return list(found.values())


def _name(kind: str, unit: str) -> str:
    last = unit.rpartition("/")[2]
    if kind in OF_RUN:
        return last.removesuffix(".html")
    return unit if kind == "outputs" else last.partition(".")[0]


def _read(addresses: Iterable[str]) -> dict[str, str]:
    root = storage.artifact_path()
    paths = {f"{root.path}/{address}": address for address in addresses}
    # A store of objects is asked for many at once.
    found = root.fs.cat(list(paths)) if paths else {}
    return {paths[path]: content.decode(errors="replace") for path, content in found.items()}


def _is_broken(address: str, text: str) -> bool:
    kind, _, *rest = address.split("/")
    if kind != "runs" or len(rest) > 1:
        return False
    try:
        StageRecord.model_validate_json(text)
    except ValidationError:
        return True
    return False


def _words(text: str) -> set[str]:
    return set(re.findall(r"[\w-]+", text))


def _remove(going: Sequence[Thing], tracked: Sequence[purge.TrackedRun], free_space: bool) -> None:
    root = storage.artifact_path()
    for kind in ORDER:
        things = [one for one in going if one.kind == kind]
        if kind == MLFLOW:
            keys = {one.name for one in things}
            purge.remove([one for one in tracked if one.key in keys], free_space)
        elif files := [file for one in things for file in one.files]:
            root.fs.rm([f"{root.path}/{file}" for file in files])
            if storage.is_local(root):
                _remove_empty(root, files)


def _remove_empty(root: UPath, files: Iterable[str]) -> None:
    folders = {folder for file in files for folder in PurePosixPath(file).parents[:-2]}
    for folder in sorted(folders, reverse=True):
        # A run may have written into it again.
        with contextlib.suppress(OSError):
            os.rmdir(f"{root / folder}")


def _row(kind: str, things: Sequence[Thing]) -> dict[str, Any]:
    times = sorted(f"{one.newest:%Y-%m-%d %H:%M}" for one in things)
    size = sum(one.size for one in things)
    return {"kind": kind, "number": len(things), "bytes": size, "from": times[0], "to": times[-1]}


def _show(rows: Sequence[dict[str, Any]], title: str) -> None:
    from rich.filesize import decimal
    from rich.table import Table

    table = Table("kind", "number", "size", "oldest", "newest", title=title, box=None)
    for row in rows:
        size = decimal(row["bytes"]) if row["bytes"] else ""
        table.add_row(row["kind"], f"{row['number']}", size, row["from"], row["to"])
    out.print(table if rows else f"nothing {title}")
