"""E-mail: it arrives over every kind of connection, and servers that misbehave."""

from __future__ import annotations

import email.utils
import smtplib
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import trustme
from flight_delays import alerts
from flight_delays.alerts import delivery, sender
from flight_delays.alerts.channels import smtp
from receivers import free_port, mailbox, silent_server

Configure = Callable[..., None]


@pytest.fixture(autouse=True)
def one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try once, at once: what is repeated and collected has tests of its own."""
    monkeypatch.setattr(delivery, "FIRST_PAUSE_SECONDS", 1e9)
    monkeypatch.setattr(sender, "SIMILAR_SECONDS", 0.0)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


@pytest.fixture
def configure(project: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Return a function that points the channel at a port."""

    def set_variables(port: int, security: str = "none", **more: str) -> None:
        variables = {
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": str(port),
            "SMTP_SECURITY": security,
            "SMTP_FROM": "Pipeline <pipeline@example.com>",
            "SMTP_TO": "me@example.com, you@example.com",
        }
        for name, value in (variables | more).items():
            monkeypatch.setenv(name, value)

    return set_variables


def failure(message: str = "no space left") -> alerts.Event:
    return alerts.Event.of_failure(
        OSError(message), pipeline="training", stage="train", log_url="http://airflow:8080/log?a=1"
    )


@pytest.mark.parametrize("security", ["none", "starttls", "tls"])
def test_an_email_arrives_over_every_kind_of_connection(
    configure: Configure, server_context: ssl.SSLContext, ca_file: str, security: str
) -> None:
    with mailbox(security, server_context) as box:
        configure(box.port, security, SMTP_CA_FILE=ca_file)
        assert alerts.send(failure()) == [alerts.Delivery(channel="smtp")]
    (message,) = box.messages
    assert box.encrypted == [security != "none"]
    assert box.recipients == [["me@example.com", "you@example.com"]]
    assert message["Subject"] == failure().title
    assert message["Subject"].endswith(" - training / train")
    assert message["From"] == "Pipeline <pipeline@example.com>"
    text = message.get_content()
    assert "OSError: no space left" in text
    assert "Log: http://airflow:8080/log?a=1" in text


def test_it_logs_in_where_the_server_asks_for_it(
    configure: Configure,
    server_context: ssl.SSLContext,
    ca_file: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with mailbox("starttls", server_context, login=("robot", "swordfish")) as box:
        configure(box.port, "starttls", SMTP_CA_FILE=ca_file, SMTP_USER="robot")
        monkeypatch.setenv("SMTP_PASSWORD", "swordfish")
        assert alerts.send(failure()) == [alerts.Delivery(channel="smtp")]
        monkeypatch.setenv("SMTP_PASSWORD", "herring")
        (refused,) = alerts.send(failure())
    assert "SMTPAuthenticationError" in str(refused.error)
    assert "herring" not in str(refused.error)
    assert len(box.messages) == 1


def test_a_certificate_that_nobody_vouches_for_is_refused(
    configure: Configure, server_context: ssl.SSLContext
) -> None:
    with mailbox("starttls", server_context) as box:
        configure(box.port, "starttls")
        (delivery,) = alerts.send(failure())
    assert "CERTIFICATE_VERIFY_FAILED" in str(delivery.error)
    assert box.messages == []


def test_starttls_is_never_skipped_when_the_server_does_not_offer_it(configure: Configure) -> None:
    with mailbox("none") as box:
        configure(box.port, "starttls")
        (delivery,) = alerts.send(failure())
    assert "STARTTLS" in str(delivery.error)
    assert box.messages == []


@pytest.mark.parametrize(
    "recipients",
    [
        "a@example.org, b@example.org",
        "a@example.org,b@example.org,",
        'A Team <a@example.org>, "B, Team" <b@example.org>',
        "Zoë <a@example.org>, (the others) b@example.org",
        '"x; y" <a@example.org>, <b@example.org>',
        "Us: a@example.org, b@example.org;",
    ],
)
def test_each_recipient_gets_it_however_they_are_written(
    configure: Configure, recipients: str
) -> None:
    with mailbox() as box:
        configure(box.port, SMTP_TO=recipients)
        assert alerts.send(failure()) == [alerts.Delivery(channel="smtp")]
    assert box.recipients == [["a@example.org", "b@example.org"]]


@pytest.mark.parametrize("name", ["SMTP_TO", "SMTP_FROM"])
@pytest.mark.parametrize(
    "value",
    [
        "a@example.org; b@example.org",
        "a@example.org b@example.org",
        "A Team <a@example.org>;<b@example.org>",
        "A Team a@example.org",
        "B, Team <b@example.org>",
        "a@example.org\nBcc: victim@example.org",
        "a@",
        "a@@example.org",
        "Nobody <>",
        ";",
    ],
)
def test_what_mail_programs_may_read_differently_is_refused_by_name_and_value(
    configure: Configure, name: str, value: str
) -> None:
    with mailbox() as box:
        configure(box.port, **{name: value})
        (delivery,) = alerts.send(failure())
    assert f"{name} is {value!r}" in str(delivery.error)
    assert "commas in between" in str(delivery.error)
    assert box.messages == []


def test_who_was_refused_is_named_and_the_others_get_it(configure: Configure) -> None:
    with mailbox() as box:
        box.refusals["you@example.com"] = ["550 5.1.1 No such user"]
        configure(box.port)
        (delivery,) = alerts.send(failure())
    assert "refused you@example.com (550 5.1.1 No such user)" in str(delivery.error)
    assert box.recipients == [["me@example.com"]]


def test_no_look_up_of_this_hosts_own_name_takes_the_time_of_a_mail(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody_knows(name: str = "") -> str:
        raise AssertionError(f"looked up {name or 'this host'}")

    # The mail server of this test is in the same process.
    here = ModuleType("socket")
    vars(here).update(vars(socket))
    for function in ("getfqdn", "gethostbyname", "gethostbyaddr", "gethostbyname_ex"):
        setattr(here, function, nobody_knows)
    monkeypatch.setattr(smtplib, "socket", here)
    monkeypatch.setattr(email.utils, "socket", here)
    with mailbox() as box:
        configure(box.port)
        assert alerts.send(failure()) == [alerts.Delivery(channel="smtp")]


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\r", "\u2028", "\x0b"])
def test_a_text_cannot_add_a_header(configure: Configure, separator: str) -> None:
    hostile = f"x{separator}Bcc: victim@example.com"
    event = alerts.Event(kind="test", summary=hostile, project=hostile, pipeline=hostile)
    with mailbox() as box:
        configure(box.port)
        assert alerts.send(event) == [alerts.Delivery(channel="smtp")]
    assert box.messages[0]["Bcc"] is None
    assert box.messages[0]["Subject"].count("Bcc") == 2
    assert box.recipients == [["me@example.com", "you@example.com"]]


@pytest.mark.parametrize("text", ["größer 😀", "\ud800", "\x00\x1b", "y" * 100_000, ".\n.\n"])
def test_any_text_arrives(configure: Configure, text: str) -> None:
    with mailbox() as box:
        configure(box.port)
        assert alerts.send(failure(text)) == [alerts.Delivery(channel="smtp")]
    assert len(box.messages) == 1


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"SMTP_TO": ""}, "SMTP_TO is not set"),
        ({"SMTP_HOST": "", "SMTP_FROM": ""}, "SMTP_HOST is not set; SMTP_FROM is not set"),
        ({"SMTP_TO": "me@example.com, somebody"}, "SMTP_TO is 'me@example.com, somebody', which"),
        ({"SMTP_FROM": "a@example.com, b@example.com"}, "a message has one sender"),
        ({"SMTP_SECURITY": "ssl"}, "SMTP_SECURITY is 'ssl', not one of starttls, tls, none"),
        ({"SMTP_PORT": "mail"}, "SMTP_PORT is 'mail', not a number"),
        ({"SMTP_USER": "robot"}, "SMTP_USER and SMTP_PASSWORD go together"),
        ({"SMTP_CA_FILE": "missing.pem"}, "SMTP_CA_FILE"),
    ],
)
def test_a_half_configured_channel_says_what_is_wrong(
    configure: Configure, variables: dict[str, str], problem: str
) -> None:
    configure(25, **variables)
    (delivery,) = alerts.send(failure())
    assert problem in str(delivery.error)
    with pytest.raises(smtp.EmailError, match=problem.replace("(", "\\(")):
        smtp.describe()


def test_the_password_is_not_shown(configure: Configure) -> None:
    configure(587, "starttls", SMTP_USER="robot", SMTP_PASSWORD="swordfish")
    assert smtp.describe() == "me@example.com, you@example.com through 127.0.0.1:587 (starttls)"


def test_a_server_that_is_not_there_is_a_failure(configure: Configure) -> None:
    configure(free_port())
    (delivery,) = alerts.send(failure())
    assert "ConnectionRefusedError" in str(delivery.error)


@pytest.mark.parametrize(
    ("greeting", "every"),
    [(b"", None), (b"220-hello\r\n", 0.05), (b"220 ready\r\n", None), (b"\x00" * 9000, None)],
    ids=["says nothing", "never ends its greeting", "never answers", "speaks no SMTP"],
)
def test_a_server_that_hangs_costs_no_more_than_the_time_limit(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, greeting: bytes, every: float | None
) -> None:
    monkeypatch.setattr(sender, "TOTAL_SECONDS", 1.0)
    started = time.monotonic()
    with silent_server(greeting, every) as port:
        configure(port)
        (delivery,) = alerts.send(failure())
    assert delivery.error
    assert time.monotonic() - started < 3
