"""Whether a port of this machine is free, and if not, who has it, as far as Linux shows."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from pathlib import Path

# What /proc/net/tcp calls a socket that listens.
_LISTENS = "0A"
_PROC = Path("/proc")
# What getaddrinfo() is asked for instead of an address of IPv4.
_BOTH_FAMILIES = {"127.0.0.1": (None, 0), "0.0.0.0": (None, socket.AI_PASSIVE)}


def require_free(port: int, variable: str, host: str = "127.0.0.1") -> None:
    """Check that a port can be listened on.

    Raises:
        SystemExit: It cannot; says who has taken it, and which variable sets another.
    """
    if error := refusal(port, host):
        taken = error.errno == errno.EADDRINUSE
        why = f"is taken by {listener(port)}: stop it, or" if taken else f"is refused ({error}):"
        raise SystemExit(f"error: port {port} {why} set {variable} in .env to another")


def refusal(port: int, host: str = "127.0.0.1") -> OSError | None:
    """Return why a port cannot be listened on, None if it can.

    127.0.0.1 and 0.0.0.0 also stand for their IPv6 counterparts: a program that has the port
    there answers requests to `localhost`.
    """
    name, flags = _BOTH_FAMILIES.get(host, (host, 0))
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=flags)
    except OSError as error:
        return error
    for family, _, _, _, (address, *_) in found:
        try:
            socket.create_server((address, port), family=family).close()
        except OSError as error:
            # A machine may have no IPv6.
            if error.errno == errno.EADDRINUSE or host not in _BOTH_FAMILIES or address == host:
                return error
    return None


def listener(port: int) -> str:
    """Return who listens on a port, like "python (process 47)"; "another program" if unknown."""
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    for folder in _PROC.glob("[0-9]*"):
        # A process may end meanwhile; another user's files are hidden.
        with contextlib.suppress(OSError):
            if any(_link(file) in sockets for file in (folder / "fd").iterdir()):
                return f"{(folder / 'comm').read_text().strip()} (process {folder.name})"
    return "another program"


def _listening(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (_PROC / "net" / table).read_text().splitlines()[1:]:
                # Number, own address and port in hexadecimal, the other one's, state, …, inode.
                _, own, _, state, *_ = fields = line.split()
                if state == _LISTENS and int(own.rpartition(":")[2], 16) == port:
                    yield fields[9]


def _link(file: Path) -> str:
    with contextlib.suppress(OSError):
        return f"{file.readlink()}"
    return ""
