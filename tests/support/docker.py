"""A Docker engine of its own for the stack suite, which leaves nothing behind.

scripts/install_docker.sh brings the programs. An engine shares the machine's network, so there is
one at a time, beside no other.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from .services import running, wait_until
from .template import ROOT

# Debian 13's docker, with its path below /.
PROGRAMS = Path("/opt/ml-pipeline-template/docker")

# Short, since the address of a socket is; and the same for every run, so that one finds what a
# killed one left. Also the group of processes that containers belong to.
NAME = "ml-pipeline-template-docker"
RUN = Path("/run") / NAME
RECORD = RUN / "record.json"
SOCKET = RUN / "docker.sock"

# Addresses of containers, by which the rules about them are known.
NETWORK = "10.213."
# Where containers reach this machine.
GATEWAY = f"{NETWORK}0.1"
OURS = re.compile(rf"DOCKER|docker0|\bbr-[0-9a-f]{{12}}\b|{re.escape(NETWORK)}")
INTERFACES = re.compile(r"docker0|br-[0-9a-f]{12}|veth[0-9a-f]{7}")
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
# Made wherever an engine stores its own.
TRACES = ("/run/containerd", "/run/docker", "/run/runc", "/opt/containerd")
SERVERS = ("dockerd", "containerd", "docker-proxy")


@contextmanager
def docker_engine(folder: Path) -> Iterator[dict[str, str]]:
    """Run a Docker engine with everything it stores in a folder, which is removed at the end.

    Yields:
        Variables for programs that use it: with them `docker`, `docker compose` and
        `docker buildx` are on PATH and talk to this engine.
    """
    assert os.getuid() == 0, "the stack suite starts a Docker engine: run it as root"
    with alone():
        print("docker: install", flush=True)
        subprocess.run([ROOT / "scripts" / "install_docker.sh"], check=True)
        # Before anything is removed: it might be another engine's.
        assert not (engines := others()), f"another Docker engine runs on this machine: {engines}"
        clean_up()
        assert not (found := remains()), f"another Docker engine was on this machine: {found}"
        RUN.mkdir(parents=True)
        RECORD.write_text(json.dumps(machine(folder)))
        try:
            with started(folder) as variables:
                yield variables
        finally:
            clean_up()
        assert not (found := remains()), f"the Docker engine left {found}"
        assert not folder.exists()


@contextmanager
def alone() -> Iterator[None]:
    """Keep a second engine away; the system forgets the name when this process ends."""
    with socket.socket(socket.AF_UNIX) as lock:
        try:
            lock.bind(f"\0{NAME}")
        except OSError as error:
            raise AssertionError("the stack suite runs already, in another process") from error
        yield


@contextmanager
def started(folder: Path) -> Iterator[dict[str, str]]:
    """Start the engine and wait until it answers."""
    print("docker: start", flush=True)
    client = folder / "client"
    client.mkdir(parents=True)
    (client / "cli-plugins").symlink_to(PROGRAMS / "usr/libexec/docker/cli-plugins")
    path = f"{PROGRAMS}/usr/bin:{PROGRAMS}/usr/sbin:/usr/sbin:{os.environ['PATH']}"
    command = [PROGRAMS / "usr/sbin/dockerd", "--config-file", os.devnull,
               "--host", f"unix://{SOCKET}", "--group", "root", "--pidfile", RUN / "docker.pid",
               "--data-root", folder / "data", "--exec-root", RUN / "exec",
               "--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", f"/{NAME}",
               "--init-path", "/usr/bin/tini-static", "--shutdown-timeout", "10",
               "--bip", f"{GATEWAY}/24",
               "--default-address-pool", f"base={NETWORK}128.0/17,size=24",
               # No packet may be larger than what every machine's own network carries.
               "--mtu", "1400",
               "--default-network-opt", "bridge=com.docker.network.driver.mtu=1400",
               ]  # fmt: skip
    log = folder / "dockerd.log"
    with running(command, log, environment={"PATH": path}) as process:
        docker = [PROGRAMS / "usr/bin/docker", "--host", f"unix://{SOCKET}", "version"]
        wait_until(docker, process, log)
        yield {"DOCKER_HOST": f"unix://{SOCKET}", "DOCKER_CONFIG": f"{client}", "PATH": path}


def machine(folder: Path) -> dict[str, Any]:
    """Return where an engine is about to work, and how the machine is before."""
    policy = re.search(r"^:FORWARD (\w+)", iptables_save(), re.MULTILINE)
    return {
        "folder": str(folder),
        "forwarding": FORWARDING.read_text(),
        "policy": policy[1] if policy else "ACCEPT",
        "absent": [trace for trace in TRACES if not Path(trace).exists()],
    }


def clean_up() -> None:
    """Remove what an engine leaves: all of it if it was killed, its network if it has ended."""
    if not RUN.exists():
        return
    # Without a record nothing was started.
    if RECORD.exists():
        before = json.loads(RECORD.read_text())
        folder = Path(before["folder"])
        kill_all()
        for mount in reversed(mounts(folder)):
            subprocess.run(["umount", mount], check=True)
        for interface in interfaces():
            # One end of a pair takes the other with it.
            subprocess.run(["ip", "link", "delete", interface], check=False, capture_output=True)
        FORWARDING.write_text(before["forwarding"])
        remove_rules(before["policy"])
        for group in groups():
            group.rmdir()
        for made in (folder, *map(Path, before["absent"])):
            if made.exists():
                shutil.rmtree(made)
    shutil.rmtree(RUN)


def remains() -> list[str]:
    """Name what there is of this engine, and of any engine's network."""
    return [
        *(f"process {process}" for process in processes()),
        *(f"mount {mount}" for mount in mounts(RUN)),
        *(f"interface {interface}" for interface in interfaces()),
        *(f"rule {rule}" for rule in rules()),
        *(f"group {group}" for group in groups()),
        *(f"folder {folder}" for folder in (RUN,) if folder.exists()),
    ]


def processes() -> list[psutil.Process]:
    """Return the engine's servers and whatever runs in its containers."""
    found = []
    for process in psutil.process_iter():
        # It may end while it is looked at.
        with contextlib.suppress(psutil.Error, OSError):
            of_engine = f"{RUN}/" in " ".join(process.cmdline())
            if of_engine and process.name().startswith(SERVERS):
                found += [process, *process.children(recursive=True)]
            elif f"/{NAME}/" in Path(f"/proc/{process.pid}/cgroup").read_text():
                found.append(process)
    return list(dict.fromkeys(found))


def others() -> list[psutil.Process]:
    """Return engines that are not this one."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name() == "dockerd" and f"{RUN}/" not in " ".join(process.cmdline()):
                found.append(process)
    return found


def kill_all() -> None:
    """Kill the engine's processes, and those that started meanwhile."""
    for _ in range(5):
        doomed = processes()
        for process in doomed:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(doomed, timeout=10)


def mounts(*folders: Path) -> list[str]:
    """Return the mount points below folders, in the order in which they were made."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    below = tuple(f"{folder}/" for folder in (RUN, *folders))
    return [point for point in points if point.startswith(below)]


def interfaces() -> list[str]:
    """Return the network interfaces that engines make."""
    return [name for _, name in socket.if_nameindex() if INTERFACES.fullmatch(name)]


def groups() -> list[Path]:
    """Return the engine's groups of processes, the innermost first."""
    roots = [path for path in Path("/sys/fs/cgroup").glob(f"**/{NAME}") if path.is_dir()]
    inner = [path for root in roots for path in root.glob("**/") if path != root]
    return [*sorted(inner, key=lambda path: -len(path.parts)), *roots]


def iptables_save() -> str:
    """Return the machine's packet filter as text."""
    done = subprocess.run(["/usr/sbin/iptables-save"], check=True, capture_output=True, text=True)
    return done.stdout


def rules() -> list[str]:
    """Return the rules and chains of engines."""
    return [line for line in iptables_save().splitlines() if OURS.search(line)]


def remove_rules(policy: str) -> None:
    """Take the engines' rules out, and let through again what the machine let through before."""
    lines = [line for line in iptables_save().splitlines() if not OURS.search(line)]
    text = re.sub(r"^:FORWARD \w+", f":FORWARD {policy}", "\n".join(lines), flags=re.MULTILINE)
    subprocess.run(["/usr/sbin/iptables-restore"], input=f"{text}\n", text=True, check=True)
