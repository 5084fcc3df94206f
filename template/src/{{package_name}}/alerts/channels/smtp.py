"""E-mail through an SMTP server: set SMTP_HOST, SMTP_FROM and SMTP_TO.

SMTP_SECURITY is starttls (the default), tls or none; SMTP_PORT follows it. SMTP_USER and
SMTP_PASSWORD log in; SMTP_CA_FILE names the certificates to trust instead of the system's.
"""

from __future__ import annotations

import html
import os
import smtplib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path

from ..event import Event
from . import CONNECT_SECONDS, TOTAL_SECONDS

_REQUIRED = ("SMTP_HOST", "SMTP_FROM", "SMTP_TO")
_OPTIONAL = ("SMTP_PORT", "SMTP_SECURITY", "SMTP_USER", "SMTP_PASSWORD", "SMTP_CA_FILE")
VARIABLES = _REQUIRED + _OPTIONAL
_PORTS = {"starttls": 587, "tls": 465, "none": 25}


class EmailError(Exception):
    """E-mail is not configured well, or a recipient was refused."""


@dataclass(frozen=True)
class Server:
    """Where e-mail goes and how to get in."""

    host: str
    port: int
    security: str
    user: str
    password: str = field(repr=False)
    sender: str
    recipients: tuple[str, ...]
    ca_file: str | None


def configured() -> bool:
    """Return whether a server, sender or recipient is set; `describe` tells whether all are."""
    return any(os.environ.get(name) for name in _REQUIRED)


def describe() -> str:
    """Return the recipients and the server.

    Raises:
        EmailError: Names every variable that is missing or wrong.
    """
    server = _server()
    recipients = ", ".join(server.recipients)
    return f"{recipients} through {server.host}:{server.port} ({server.security})"


def send(event: Event) -> None:
    """Send the event as plain text with an HTML alternative.

    Raises:
        EmailError: The configuration is incomplete, or the server refused some recipients.
        smtplib.SMTPException: The server refused the message.
        OSError: No connection, or a certificate that is not trusted.
    """
    server = _server()
    with _connection(server) as smtp:
        if server.user:
            smtp.login(server.user, server.password)
        refused = smtp.send_message(message(event, server.sender, server.recipients))
    if refused:
        raise EmailError(f"the server refused {', '.join(refused)}")


def message(event: Event, sender: str, recipients: tuple[str, ...]) -> EmailMessage:
    """Return the event as an e-mail with a plain and an HTML part."""
    email = EmailMessage()
    email["Subject"] = event.title
    email["From"] = sender
    email["To"] = ", ".join(recipients)
    email["Date"] = formatdate()
    # Naming the domain saves a DNS look-up of this host.
    email["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2].strip("> "))
    email["Auto-Submitted"] = "auto-generated"
    email.set_content(_plain(event))
    email.add_alternative(_html(event), subtype="html")
    return email


def _plain(event: Event) -> str:
    lines = [event.summary, ""]
    lines += [f"{label}: {value}" for label, value in (event.facts | event.links).items()]
    if event.error:
        lines += ["", event.error]
    return "\n".join(lines) + "\n"


def _html(event: Event) -> str:
    rows = [(label, html.escape(value)) for label, value in event.facts.items()]
    for label, address in event.links.items():
        safe = html.escape(address)
        rows.append((label, f'<a href="{safe}">{safe}</a>'))
    table = "".join(
        f'<tr><th align="left">{html.escape(label)}</th><td>{value}</td></tr>\n'
        for label, value in rows
    )
    error = f"<pre>{html.escape(event.error)}</pre>\n" if event.error else ""
    return (
        f"<html><body>\n<h3>{html.escape(event.title)}</h3>\n<p>{html.escape(event.summary)}</p>\n"
        f"<table>\n{table}</table>\n{error}</body></html>\n"
    )


@contextmanager
def _connection(server: Server) -> Iterator[smtplib.SMTP]:
    import ssl

    smtp: smtplib.SMTP
    if server.security == "tls":
        context = ssl.create_default_context(cafile=server.ca_file)
        smtp = smtplib.SMTP_SSL(server.host, server.port, timeout=CONNECT_SECONDS, context=context)
    else:
        smtp = smtplib.SMTP(server.host, server.port, timeout=CONNECT_SECONDS)
    with smtp:
        if smtp.sock is not None:
            smtp.sock.settimeout(TOTAL_SECONDS)
        if server.security == "starttls":
            smtp.starttls(context=ssl.create_default_context(cafile=server.ca_file))
        yield smtp


def _server() -> Server:
    env = {name: os.environ.get(name, "").strip() for name in VARIABLES}
    security = env["SMTP_SECURITY"] or "starttls"
    port = env["SMTP_PORT"] or str(_PORTS.get(security, ""))
    recipients = tuple(part.strip() for part in env["SMTP_TO"].split(",") if part.strip())
    errors = [f"{name} is not set" for name in _REQUIRED if not env[name]]
    errors += [
        f"'{address}' is not an e-mail address"
        for address in (env["SMTP_FROM"], *recipients)
        if address and "@" not in address
    ]
    ca_file = env["SMTP_CA_FILE"]
    if ca_file and not Path(ca_file).is_file():
        errors.append(f"SMTP_CA_FILE names '{ca_file}', which is not a file")
    if security not in _PORTS:
        errors.append(f"SMTP_SECURITY is '{security}', not one of {', '.join(_PORTS)}")
    elif not port.isdecimal():
        errors.append(f"SMTP_PORT is '{port}', not a number")
    if bool(env["SMTP_USER"]) != bool(env["SMTP_PASSWORD"]):
        errors.append("SMTP_USER and SMTP_PASSWORD go together, and one is not set")
    if errors:
        raise EmailError("; ".join(errors))
    return Server(
        host=env["SMTP_HOST"],
        port=int(port),
        security=security,
        user=env["SMTP_USER"],
        password=env["SMTP_PASSWORD"],
        sender=env["SMTP_FROM"],
        recipients=recipients,
        ca_file=ca_file or None,
    )
