"""A port that is taken: by whom, and which variable sets another."""

from __future__ import annotations

import errno
import os
import socket

import pytest
from flight_delays.core.checks import port_probe
from flight_delays.core.ports import listener, require_free


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_who_has_the_port_is_named(family: socket.AddressFamily) -> None:
    host = "127.0.0.1" if family == socket.AF_INET else "::"
    # Both families together, as servers that listen on all addresses do.
    options = {"dualstack_ipv6": True} if family == socket.AF_INET6 else {}
    with socket.create_server((host, 0), family=family, **options) as server:
        port = server.getsockname()[1]
        message = rf"port {port} is taken by .* \(process {os.getpid()}\): stop it, or set A_PORT"
        with pytest.raises(SystemExit, match=message):
            require_free(port, "A_PORT")
    require_free(port, "A_PORT")


@pytest.mark.parametrize(("host", "taken"), [("127.0.0.1", "::1"), ("0.0.0.0", "::")])
def test_who_has_the_port_of_the_other_family_alone_is_named(host: str, taken: str) -> None:
    """What asks for `localhost` would get that program instead."""
    with socket.create_server((taken, 0), family=socket.AF_INET6) as server:
        port = server.getsockname()[1]
        with pytest.raises(SystemExit, match=rf"is taken by .* \(process {os.getpid()}\)"):
            require_free(port, "A_PORT", host)
        (check,) = port_probe("UI", "A_PORT", port, "/health", "OK").checks()
    assert f"(process {os.getpid()}) listens on port {port}" in check.detail
    assert not check.ok
    (check,) = port_probe("UI", "A_PORT", port, "/health", "OK").checks()
    assert check.detail == f"port {port} is free"


def test_a_machine_without_ipv6_has_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    made = socket.create_server

    def create_server(address: tuple[str, int], family: socket.AddressFamily) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "no such address")
        return made(address, family=family)

    monkeypatch.setattr(socket, "create_server", create_server)
    require_free(0, "A_PORT")
    require_free(0, "A_PORT", "0.0.0.0")


def test_a_host_that_is_not_of_this_machine_is_said() -> None:
    with pytest.raises(SystemExit, match=r"is refused \(.*\): set A_PORT"):
        require_free(0, "A_PORT", "192.0.2.1")


def test_who_cannot_be_seen_is_another_program() -> None:
    assert listener(1) == "another program"
