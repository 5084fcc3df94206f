"""E-mail through an SMTP server: set SMTP_HOST, SMTP_FROM and SMTP_TO.

SMTP_SECURITY is starttls (the default), tls or none; SMTP_PORT follows it. SMTP_USER and
SMTP_PASSWORD log in; SMTP_CA_FILE names the certificates to trust instead of the system's.
"""

from __future__ import annotations

import os
import smtplib
import socket
from collections.abc import Mapping
from email import policy
from email.errors import NonASCIILocalPartDefect, ObsoleteHeaderDefect
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path

from ..event import Event
from . import TOTAL_SECONDS, NotDelivered

_REQUIRED = ("SMTP_HOST", "SMTP_FROM", "SMTP_TO")
_OPTIONAL = ("SMTP_PORT", "SMTP_SECURITY", "SMTP_USER", "SMTP_PASSWORD", "SMTP_CA_FILE")
VARIABLES = _REQUIRED + _OPTIONAL
# Mail programs agree on them: an empty place between commas, letters beyond ASCII.
_HARMLESS = (ObsoleteHeaderDefect, NonASCIILocalPartDefect)
_PORTS = {"starttls": "587", "tls": "465", "none": "25"}


class EmailError(NotDelivered):
    """E-mail is not configured well, or the server refused the message or recipients."""


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
        EmailError: The configuration is incomplete, or the server refused the message or some
            recipients.
        smtplib.SMTPException: The server does not speak as it should.
        OSError: No connection, or a certificate that is not trusted.
    """
    env = _variables()
    email = message(event, env["SMTP_FROM"], env["SMTP_TO"])
    (sender,) = _addresses("SMTP_FROM", env["SMTP_FROM"])
    everybody = _addresses("SMTP_TO", env["SMTP_TO"])
    # If the setting was corrected since, it may name none of the recipients that are left.
    recipients = [one for one in everybody if one in event.only_to] or everybody
    try:
        with _connect(env) as smtp:
            refused = smtp.send_message(email, sender, list(recipients))
    except smtplib.SMTPRecipientsRefused as error:
        refused = error.recipients
    except smtplib.SMTPResponseException as error:
        reason = f"{type(error).__name__}: {error}"
        raise EmailError(reason, refused=error.smtp_code >= 500, left=event.only_to) from error
    if refused:
        answers = "; ".join(
            f"{address} ({code} {answer.decode(errors='replace')})"
            for address, (code, answer) in refused.items()
        )
        for_good = all(code >= 500 for code, _ in refused.values())
        raise EmailError(f"the server refused {answers}", refused=for_good, left=tuple(refused))


def _connect(env: Mapping[str, str]) -> smtplib.SMTP:
    import ssl

    host, port, security = env["SMTP_HOST"], int(env["SMTP_PORT"]), env["SMTP_SECURITY"]
    context = ssl.create_default_context(cafile=env["SMTP_CA_FILE"] or None)
    # smtplib would look this host's name up, which takes a minute where no server knows it.
    name = socket.gethostname()
    name = name if "." in name else "[127.0.0.1]"
    smtp = (
        smtplib.SMTP_SSL(host, port, name, timeout=TOTAL_SECONDS, context=context)
        if security == "tls"
        else smtplib.SMTP(host, port, name, timeout=TOTAL_SECONDS)
    )
    try:
        if security == "starttls":
            smtp.starttls(context=context)
        if env["SMTP_USER"]:
            smtp.login(env["SMTP_USER"], env["SMTP_PASSWORD"])
    except BaseException:
        smtp.close()
        raise
    return smtp


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
    for name in ("SMTP_FROM", "SMTP_TO"):
        try:
            found = _addresses(name, env[name]) if env[name] else ()
            if name == "SMTP_FROM" and len(found) > 1:
                errors.append(f"SMTP_FROM is '{env[name]}', and a message has one sender")
        except EmailError as error:
            errors.append(str(error))
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


def _addresses(name: str, value: str) -> tuple[str, ...]:
    """Return the addresses in a variable, without the names of people.

    Raises:
        EmailError: It is not what a mail's header may hold, so mail programs disagree on it.
    """
    try:
        header = policy.SMTP.header_factory("To", value)
        found = tuple(address.addr_spec for address in header.addresses)
        broken = [one for one in header.defects if not isinstance(one, _HARMLESS)]
    except (IndexError, ValueError):
        # So do some broken addresses end in Python's parser.
        found, broken = (), []
    if broken or not found:
        raise EmailError(
            f"{name} is {value!r}, which is not one or more e-mail addresses with commas in "
            "between, like: me@example.org, Our Team <team@example.org>"
        )
    return found
