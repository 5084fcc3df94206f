"""Break runs of a generated project at random, and look whether the next run is right again.

A drill breaks something, then trains and scores as on any day, and holds what there is against
what must be so whatever happened: see `judge`. The runs are those of the plain runner.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from receivers import mailbox, silent_server
from rich.console import Console
from rich.table import Table

from tests.support.projects import make_installed_project
from tests.support.template import copy_sources

from .soak import soak
from .under_test import PATIENCE_SECONDS, BrokenError, Site, judge, same_predictions

EXAMPLES = """examples:
  uv run poe drills --minutes 10
  uv run poe drills --seed 7 --count 20 --only kill-promote
  uv run poe drills --soak 100"""
ROOM_BYTES = 32_000_000
ABSENT = "1999-01-01"


def kill(site: Site, partition: str) -> str:
    """SIGKILL at a random moment of a training."""
    code = site.signal_in("training", partition, signal.SIGKILL)
    return f"{partition}, {site.hit}, exit {code}"


def kill_inference(site: Site, partition: str) -> str:
    """SIGKILL at a random moment of an inference."""
    code = site.signal_in("inference", site.reference, signal.SIGKILL)
    return f"{site.reference}, {site.hit}, exit {code}"


def kill_promote(site: Site, partition: str) -> str:
    """SIGKILL while the champion changes: the records say when evaluate has ended."""
    runs = site.var / "artifacts" / "runs"
    before = set(runs.iterdir())
    number = site.start("run", "training", "--partition", partition)
    end = time.monotonic() + PATIENCE_SECONDS
    while not any((one / "evaluate.json").exists() for one in set(runs.iterdir()) - before):
        if time.monotonic() > end:
            break
        time.sleep(0.005)
    time.sleep(site.chance.uniform(0, 0.3))
    with suppress(ProcessLookupError):
        os.killpg(number, signal.SIGKILL)
    return f"{partition}, {site.hit}, exit {site.wait(number)}"


def terminate(site: Site, partition: str) -> str:
    """SIGTERM: exit 143, one alert, and the run is KILLED in MLflow."""
    told, before = site.told(), site.facts()["runs"]
    code = site.signal_in("training", partition, signal.SIGTERM)
    hit, said = site.hit, site.said
    if hit == "report finished" and code == -signal.SIGTERM:
        # The run was over, and with it its own way to end; nothing is lost.
        code = 0
    if code not in (0, 143):
        raise BrokenError(f"SIGTERM in {hit} ends with {code}: {said}")
    if site.told() - told != bool(code):
        raise BrokenError(f"{site.told() - told} alerts of a SIGTERM in {hit}, exit {code}")
    after = site.facts()["runs"]
    left = {after[run][0] for run in after.keys() - before.keys()} - {"KILLED", "FINISHED"}
    # A run that no stage has begun in is closed by the next one.
    if code and left and hit != "start at work":
        raise BrokenError(f"SIGTERM in {hit} leaves MLflow runs {left}")
    return f"{partition}, {hit}, exit {code}"


def birth(site: Site, partition: str) -> str:
    """SIGKILL in the very first run of all; the next one must make the first champion."""
    kept = site.var.rename(site.path / "var-kept")
    try:
        code = site.signal_in("training", partition, signal.SIGKILL)
        hit = site.hit
        site.good("training", partition)
        found = site.facts()
        if found["versions"] != [1, None]:
            raise BrokenError(f"champion and previous of a new store: {found['versions']}")
        if any(status == "RUNNING" for status, _, _ in found["runs"].values()):
            raise BrokenError("an MLflow run of the new store is left RUNNING")
    finally:
        shutil.rmtree(site.var, ignore_errors=True)
        kept.rename(site.var)
    return f"{partition}, {hit}, exit {code}"


def race(site: Site, partition: str) -> str:
    """Two trainings and an inference at once."""
    other = site.chance.choice(site.days)
    asked = [("training", partition), ("training", other), ("inference", site.reference)]
    logs = [site.path / f"race-{number}.log" for number in range(3)]
    numbers = [
        site.start("run", pipeline, "--partition", of, log=log)
        for (pipeline, of), log in zip(asked, logs, strict=True)
    ]
    codes = [site.wait(number) for number in numbers]
    for code, log in zip(codes, logs, strict=True):
        if code:
            raise BrokenError(f"one of {asked} ends with {codes}: {log.read_text()[-300:]}")
    return f"{partition} and {other}"


def disk_full(site: Site, partition: str) -> str:
    """The disk of artefacts and store fills at a random moment of a training."""
    told = site.told()
    with small_disk(site.var):
        number = site.start("run", "training", "--partition", partition)
        time.sleep(site.chance.uniform(0.05, site.seconds["training"]))
        filler = site.var / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        code, hit = site.wait(number), site.hit
        filler.unlink()
    text = site.log.read_text()
    if code and (code != 1 or "Traceback" in text or "disk" not in site.said):
        raise BrokenError(f"a full disk in {hit} ends with {code}: {site.said}")
    if site.told() - told != bool(code):
        raise BrokenError(f"{site.told() - told} alerts of a full disk in {hit}, exit {code}")
    return f"{partition}, {hit}, exit {code}"


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Have a folder on a small disk of its own for as long as the block runs."""
    kept = folder.rename(folder.with_name("var-kept"))
    size = sum(one.stat().st_size for one in kept.rglob("*")) + ROOM_BYTES
    folder.mkdir(mode=0o700)
    try:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "drill", f"{folder}"]
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BrokenError(f"a small disk cannot be mounted: {done.stderr.strip()}")
        try:
            shutil.copytree(kept, folder, dirs_exist_ok=True)
            yield
            shutil.rmtree(kept)
            shutil.copytree(folder, kept)
        finally:
            subprocess.run(["umount", folder], check=True)
    finally:
        folder.rmdir()
        kept.rename(folder)


def damage(site: Site, partition: str) -> str:
    """One stored file is cut or has other bytes: the next runs heal it, or name it."""
    champion = site.facts()["versions"][0]
    kinds = [*(site.var / "artifacts").iterdir(), *(site.var / "mlflow").iterdir()]
    place = site.chance.choice(sorted(one for one in kinds if one.name != ".tmp"))
    files = sorted(one for one in [place, *place.rglob("*")] if one.is_file())
    file = site.chance.choice(files)
    sound = file.read_bytes()
    broken = spoil(sound, site.chance)
    file.write_bytes(broken)
    outcomes = []
    for pipeline, of in (("training", partition), ("inference", site.reference)):
        code = site.run("run", pipeline, "--partition", of)
        text = "".join(site.log.read_text(errors="replace").split())
        if code and (code != 1 or "Traceback" in text or file.name not in text):
            raise BrokenError(f"{file} is damaged: {pipeline} ends with {code}: {site.said}")
        outcomes.append("named" if code else "well")
    if outcomes[-1] == "well" and site.facts()["versions"][0] == champion:
        same_predictions(site, champion)
    left = file.is_file() and file.read_bytes() == broken
    if left:
        file.write_bytes(sound)
    where = file.relative_to(site.var)
    return (
        f"{where} ({len(sound)} → {len(broken)} bytes), {outcomes}, {'left' if left else 'healed'}"
    )


def spoil(content: bytes, chance: random.Random) -> bytes:
    """Return bytes cut short, or with some others in place of them."""
    if not content or chance.random() < 0.5:
        return content[: chance.randrange(len(content) or 1)]
    changed = bytearray(content)
    for _ in range(8):
        changed[chance.randrange(len(changed))] ^= chance.randrange(1, 256)
    return bytes(changed)


def mail(site: Site, partition: str) -> str:
    """The mail server is busy or silent at first: the alert arrives later."""
    failing = ("run", "inference", "--partition", ABSENT)
    how = site.chance.choice(["busy", "silent"])
    told = site.told()
    if how == "silent":
        with silent_server() as port:
            code = site.run(*failing, smtp_port=port)
    else:
        site.mail.refusals["team@example.org"] = ["451 try again later"] * site.chance.randint(1, 9)
        code = site.run(*failing)
        site.mail.refusals.clear()
    if code != 1:
        raise BrokenError(f"a missing partition ends with {code}: {site.said}")
    if flushed := site.chance.random() < 0.5:
        site.run("alert", "flush")
    else:
        site.good("training", partition)
    if site.told() == told:
        raise BrokenError("the alert has not arrived")
    return f"{how}, {'alert flush' if flushed else 'next run'}"


KINDS: dict[str, Callable[[Site, str], str]] = {
    one.__name__.replace("_", "-"): one
    for one in (
        *(kill, kill_inference, terminate, kill_promote, birth, race, disk_full, damage, mail),
    )
}


def drill(site: Site, kind: str) -> str:
    """Drill once, from a state that is right; one that is broken is put aside and put back."""
    saved = site.path / "var-before"
    shutil.copytree(site.var, saved)
    # What is damaged is what the same training would use again.
    partition = site.last if kind == "damage" else site.chance.choice(site.days)
    try:
        before, predicted = site.facts(), dict(site.predicted)
        outcome = KINDS[kind](site, partition)
        judge(site, before, partition)
        site.last = partition
    except BrokenError:
        aside = site.path / f"var-broken-{len(list(site.path.glob('var-broken-*'))) + 1}"
        site.var.rename(aside)
        shutil.copytree(saved, site.var)
        site.predicted = predicted
        raise
    finally:
        shutil.rmtree(saved)
    return outcome


def drills(site: Site, kinds: list[str], minutes: float, count: int | None) -> int:
    """Drill until the time is over; returns how many failed."""
    try:
        site.good("training", site.last)
        site.good("inference", site.reference)
    except BrokenError as error:
        raise SystemExit(f"the project does not run, before any drill: {error}") from None
    drilled, failed = Counter[str](), Counter[str]()
    end = time.monotonic() + 60 * minutes
    while drilled.total() < count if count else time.monotonic() < end:
        if drilled.total() % len(kinds) == 0:
            site.chance.shuffle(kinds)
        kind = kinds[drilled.total() % len(kinds)]
        began = time.monotonic()
        drilled[kind] += 1
        try:
            outcome = drill(site, kind)
        except BrokenError as error:
            failed[kind] += 1
            outcome = f"BROKEN: {error}"
        seconds = time.monotonic() - began
        print(f"{drilled.total():3} {kind:14} {outcome}, {seconds:.1f} s", flush=True)
    table = Table("kind", "drills", "failed")
    for kind in sorted(drilled):
        table.add_row(kind, f"{drilled[kind]}", f"{failed[kind]}")
    table.add_row("all", f"{drilled.total()}", f"{failed.total()}")
    Console().print(table)
    return failed.total()


def new_project() -> Path:
    """Make and install a project in a temporary folder."""
    place = Path(tempfile.mkdtemp(prefix="drills-"))
    sources = copy_sources(place / "template")
    return make_installed_project(sources, place / "project", orchestrator="dagster").path


def main() -> int:
    """Make a project, drill it, and show what became of it."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=10, help="for how long (default: 10)")
    parser.add_argument("--count", type=int, help="so many drills, instead of so many minutes")
    parser.add_argument("--seed", type=int, help="repeats an order of drills")
    parser.add_argument("--only", choices=KINDS, action="append", help="this kind, or these")
    parser.add_argument("--soak", type=int, metavar="PARTITIONS", help="what grows, in one process")
    parser.add_argument("--project", type=Path, help="an installed project that has never run")
    given = parser.parse_args()
    if given.soak is not None and given.soak < 40:
        parser.error("--soak: less than 40 partitions show no growth")
    if given.project and (given.project / "var").exists():
        parser.error(f"--project: {given.project} has run before: its var/ is in the way")
    seed = random.randrange(1_000_000) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    path = given.project or new_project()
    chance = random.Random(seed)
    with mailbox() as inbox, closing(Site(path.resolve(), inbox, chance)) as site:
        if given.soak:
            failed = soak(site, given.soak)
        else:
            failed = drills(site, given.only or list(KINDS), given.minutes, given.count)
    if failed:
        print(f"what is left of it: {path}")
    elif not given.project:
        shutil.rmtree(path.parent)
    return min(1, failed)


if __name__ == "__main__":
    sys.exit(main())
