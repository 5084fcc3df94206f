"""E-mail through an SMTP server: set SMTP_HOST, SMTP_FROM and SMTP_TO.

SMTP_SECURITY is starttls (the default), tls or none; SMTP_PORT follows it. SMTP_USER and
SMTP_PASSWORD log in; SMTP_CA_FILE names the certificates to trust instead of the system's.
"""

from __future__ import annotations

import os
import smtplib
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path

from ..event import Event
from . import TOTAL_SECONDS

_REQUIRED = ("SMTP_HOST", "SMTP_FROM", "SMTP_TO")
_OPTIONAL = ("SMTP_PORT", "SMTP_SECURITY", "SMTP_USER", "SMTP_PASSWORD", "SMTP_CA_FILE")
VARIABLES = _REQUIRED + _OPTIONAL
_PORTS = {"starttls": "587", "tls": "465", "none": "25"}


class EmailError(Exception):
    """E-mail is not configured well, or a recipient was refused."""


def configured() -> bool:
    """Return whether a server, sender or recipient is set; `describe` tells whether all are."""
    return any(os.environ.get(name) for name in _REQUIRED)


def describe() -> str:
    """Return the recipients and the server.

    Raises:
        EmailError: Names every variable that is missing or wrong.
    """
    env = _variables()
    server = f"{env['SMTP_HOST']}:{env['SMTP_PORT']}"
    return f"{env['SMTP_TO']} through {server} ({env['SMTP_SECURITY']})"


def send(event: Event) -> None:
    """Send the event as plain text.

    Raises:
        EmailError: The configuration is incomplete, or the server refused some recipients.
        smtplib.SMTPException: The server refused the message.
        OSError: No connection, or a certificate that is not trusted.
    """
    import ssl

    env = _variables()
    host, port, security = env["SMTP_HOST"], int(env["SMTP_PORT"]), env["SMTP_SECURITY"]
    context = ssl.create_default_context(cafile=env["SMTP_CA_FILE"] or None)
    with (
        smtplib.SMTP_SSL(host, port, timeout=TOTAL_SECONDS, context=context)
        if security == "tls"
        else smtplib.SMTP(host, port, timeout=TOTAL_SECONDS)
    ) as smtp:
        if security == "starttls":
            smtp.starttls(context=context)
        if env["SMTP_USER"]:
            smtp.login(env["SMTP_USER"], env["SMTP_PASSWORD"])
        refused = smtp.send_message(message(event, env["SMTP_FROM"], env["SMTP_TO"]))
    if refused:
        raise EmailError(f"the server refused {', '.join(refused)}")


def message(event: Event, sender: str, recipients: str) -> EmailMessage:
    """Return the event as an e-mail; several recipients are separated by commas."""
    email = EmailMessage()
    email["Subject"] = event.title
    email["From"] = sender
    email["To"] = recipients
    email["Date"] = formatdate()
    # Naming the domain saves a DNS look-up of this host.
    email["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2].strip("> "))
    email["Auto-Submitted"] = "auto-generated"
    lines = [event.summary, ""]
    lines += [f"{label}: {value}" for label, value in (event.facts | event.links).items()]
    if event.error:
        lines += ["", event.error]
    email.set_content("\n".join(lines) + "\n")
    return email


def _variables() -> dict[str, str]:
    """Return the value of each of `VARIABLES`; empty where an optional one is not set."""
    env = {name: os.environ.get(name, "").strip() for name in VARIABLES}
    env["SMTP_SECURITY"] = security = env["SMTP_SECURITY"] or "starttls"
    env["SMTP_PORT"] = port = env["SMTP_PORT"] or _PORTS.get(security, "")
    errors = [f"{name} is not set" for name in _REQUIRED if not env[name]]
    addresses = [part.strip() for part in f"{env['SMTP_FROM']},{env['SMTP_TO']}".split(",")]
    errors += [
        f"'{address}' is not an e-mail address"
        for address in addresses
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
    return env
