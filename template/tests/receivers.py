"""Small web and mail servers that keep what they were sent, and one that misbehaves."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword


@dataclass
class Webhook:
    """A web server that records the body of every POST."""

    url: str
    bodies: list[bytes] = field(default_factory=list)


@contextmanager
def webhook(
    status: int = 200,
    answer: bytes = b"ok",
    headers: dict[str, str] | None = None,
    host: str = "127.0.0.1",
    first: Sequence[tuple[int, dict[str, str]]] = (),
) -> Iterator[Webhook]:
    """Run a web server that answers every request in the same way.

    Args:
        status: Of every answer.
        answer: Its body.
        headers: Its headers.
        host: The address it listens on.
        first: Status and headers of the first answers, where they differ.
    """
    others = iter(first)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.do_GET()

        def do_GET(self) -> None:
            now, these = next(others, (status, headers or {}))
            self.send_response(now)
            for name, value in these.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer((host, 0), Handler)
    received = Webhook(f"http://{host}:{server.server_port}/services/T0/B0/secret")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def silent_server(greeting: bytes = b"", every: float | None = None) -> Iterator[int]:
    """Run a server that accepts connections, sends `greeting` and then never ends.

    Args:
        greeting: What each connection is sent.
        every: Seconds after which it is sent again, and again; once only when None.

    Yields:
        The port.
    """
    done = threading.Event()

    def hold(connection: socket.socket) -> None:
        with connection:
            try:
                connection.sendall(greeting)
                while not done.wait(every):
                    connection.sendall(greeting)
            except OSError:
                return

    def accept() -> None:
        while not done.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            threading.Thread(target=hold, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()
        try:
            yield listener.getsockname()[1]
        finally:
            done.set()
            acceptor.join()


@dataclass
class Mailbox:
    """A mail server that records every message, to whom it was sent, and whether over TLS."""

    port: int
    messages: list[EmailMessage] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    # What it says first, and next, to who sends to an address.
    refusals: dict[str, list[str]] = field(default_factory=dict)

    async def handle_RCPT(  # noqa: N802
        self, server: Any, session: Any, envelope: Any, address: str, options: Any
    ) -> str:
        """Take a recipient; aiosmtpd calls this."""
        if self.refusals.get(address):
            return self.refusals[address].pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        """Keep a message; aiosmtpd calls this."""
        message = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.messages.append(message)
        self.recipients.append(envelope.rcpt_tos)
        self.encrypted.append(server.transport.get_extra_info("sslcontext") is not None)
        return "250 OK"


@contextmanager
def mailbox(
    security: str = "none",
    context: ssl.SSLContext | None = None,
    login: tuple[str, str] | None = None,
) -> Iterator[Mailbox]:
    """Run a mail server.

    Args:
        security: none, starttls or tls.
        context: The server's certificate, for starttls and tls.
        login: The only user and password it takes; nobody has to log in when None.
    """

    def authenticate(*args: Any) -> AuthResult:
        given = args[-1]
        assert isinstance(given, LoginPassword)
        expected = tuple(part.encode() for part in login or ("", ""))
        return AuthResult(success=(given.login, given.password) == expected, handled=False)

    box = Mailbox(free_port())
    controller = Controller(
        box,
        hostname="127.0.0.1",
        port=box.port,
        ssl_context=context if security == "tls" else None,
        tls_context=context if security == "starttls" else None,
        require_starttls=security == "starttls",
        authenticator=authenticate,
        auth_required=login is not None,
        auth_require_tls=security == "starttls",
    )
    controller.start()
    try:
        yield box
    finally:
        controller.stop()


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
