"""What a server does not take at once: tried again, kept, and delivered later, each once."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from flight_delays import alerts
from flight_delays.alerts import delivery, outbox, sender
from flight_delays.alerts.channels import slack
from flight_delays.cli.app import app
from flight_delays.cli.doctor import ask, probes
from flight_delays.core.errors import DataRejected
from flight_delays.core.outcomes import Violation
from flight_delays.stages.start import start
from receivers import Webhook, free_port, mailbox, silent_server, webhook
from typer.testing import CliRunner

AddChannel = Callable[[str, str], None]
DAYS = [f"2026-03-{day:02}" for day in range(1, 21)]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again soon, and wait for nobody."""
    monkeypatch.setattr(delivery, "FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(sender, "SIMILAR_SECONDS", 0.0)


def failure(partition: str = DAYS[0], **changes: Any) -> alerts.Event:
    event = alerts.Event.of_failure(
        OSError(f"no space for {partition}"),
        pipeline="training",
        stage="train",
        partition=partition,
    )
    return event.model_copy(update=changes)


def waiting(project: Path) -> list[dict[str, Any]]:
    return [
        json.loads(file.read_text()) for file in sorted(project.glob("var/alerts/outbox/*/*.json"))
    ]


def use(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Make a port the mail server."""
    variables = {
        "HOST": "127.0.0.1",
        "PORT": f"{port}",
        "SECURITY": "none",
        "FROM": "p@example.org",
    }
    for name, value in (variables | {"TO": "a@example.org, b@example.org"}).items():
        monkeypatch.setenv(f"SMTP_{name}", value)


def lose(monkeypatch: pytest.MonkeyPatch, *events: alerts.Event) -> None:
    """Send events while Slack is down."""
    monkeypatch.setenv("SLACK_WEBHOOK_URL", f"http://127.0.0.1:{free_port()}/services/x")
    with monkeypatch.context() as patch:
        patch.setattr(delivery, "FIRST_PAUSE_SECONDS", 1e9)
        assert not any(one.ok for event in events for one in alerts.send(event))


def shown(server: Webhook) -> list[str]:
    return [json.dumps(json.loads(body), ensure_ascii=False) for body in server.bodies]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_server_that_may_take_it_later_is_tried_again(
    project: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    with webhook(first=[(status, {}), (status, {"Retry-After": "soon"})]) as server:
        monkeypatch.setenv("SLACK_WEBHOOK_URL", server.url)
        assert alerts.send(failure()) == [alerts.Delivery("slack")]
    assert len(server.bodies) == 3
    assert waiting(project) == []


@pytest.mark.parametrize("status", [400, 403, 404, 410, 413])
def test_what_is_refused_for_good_is_tried_once_kept_and_named_by_doctor(
    project: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    with webhook(status, b"no_service") as server:
        monkeypatch.setenv("SLACK_WEBHOOK_URL", server.url)
        alerts.send(failure())
        alerts.flush(patient=True)
        assert len(server.bodies) == 1
    (message,) = waiting(project)
    assert message["refused"]
    check = doctors_line()
    assert not check.ok
    assert f"slack: 1 left, 1 refused (SlackError: Slack answered {status}" in check.detail
    assert "--refused" in check.fix


def doctors_line() -> Any:
    (check,) = ask(next(probe for probe in probes() if probe.name == "undelivered alerts"), 300)
    return check


def test_a_server_that_asks_to_wait_is_given_the_time(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = time.monotonic()
    with webhook(first=[(429, {"Retry-After": "1"})]) as server:
        monkeypatch.setenv("SLACK_WEBHOOK_URL", server.url)
        assert alerts.send(failure()) == [alerts.Delivery("slack")]
    assert time.monotonic() - started > 1


def test_a_wait_beyond_the_time_limit_is_left_to_the_next_run(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with webhook(429, headers={"Retry-After": "3600"}) as server:
        monkeypatch.setenv("SLACK_WEBHOOK_URL", server.url)
        assert "429" in str(alerts.send(failure())[0].error)
    assert len(server.bodies) == 1
    assert [message["refused"] for message in waiting(project)] == [False]


def test_a_time_to_wait_is_read_in_each_of_its_forms() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert 80 < slack._seconds(later) < 91
    forms = {"7": 7.0, "-7": 0.0, "soon": 0.0, "": 0.0, "Wed, 21 Oct 2015 07:28:00 GMT": 0.0}
    assert {form: slack._seconds(form) for form in forms} == forms
    assert slack._seconds("9" * 400) > 1e9


def test_a_greylisted_recipient_gets_it_at_the_next_try_and_the_other_only_once(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mailbox() as box:
        box.refusals["b@example.org"] = ["451 4.7.1 Greylisted", "451 4.7.1 Greylisted"]
        use(monkeypatch, box.port)
        assert alerts.send(failure()) == [alerts.Delivery("smtp")]
    assert box.recipients == [["a@example.org"], ["b@example.org"]]
    assert waiting(project) == []


def test_a_recipient_who_is_still_refused_gets_it_with_the_next_run_and_the_other_not_again(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mailbox() as box:
        box.refusals["b@example.org"] = ["451 4.7.1 Greylisted"]
        use(monkeypatch, box.port)
        monkeypatch.setattr(delivery, "FIRST_PAUSE_SECONDS", 1e9)
        assert "b@example.org (451 4.7.1 Greylisted)" in str(alerts.send(failure())[0].error)
        alerts.flush()
    assert box.recipients == [["a@example.org"], ["b@example.org"]]


def test_the_next_alert_takes_along_what_waits_marked_as_late_with_its_time(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    then = datetime(2026, 3, 1, 4, 5, tzinfo=UTC)
    lose(monkeypatch, failure(time=then))
    with webhook() as server:
        monkeypatch.setenv("SLACK_WEBHOOK_URL", server.url)
        alerts.send(failure(DAYS[1], stage="score"))
        alerts.send(failure(DAYS[2], stage="score"))
    now, late, _ = shown(server)
    assert "late" not in now
    assert "(late)" in late
    assert "it happened at 2026-03-01 04:05 UTC" in late
    assert waiting(project) == []


def test_the_next_run_delivers_what_waits(tracked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lose(monkeypatch, failure())
    with webhook() as server:
        monkeypatch.setenv("SLACK_WEBHOOK_URL", server.url)
        start("inference")
    (late,) = shown(server)
    assert "(late)" in late


def test_a_server_that_is_still_down_does_not_delay_the_next_run(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(monkeypatch, failure())
    monkeypatch.setattr(sender, "TOTAL_SECONDS", 0.5)
    with silent_server() as port:
        monkeypatch.setenv("SLACK_WEBHOOK_URL", f"http://127.0.0.1:{port}/services/x")
        started = time.monotonic()
        (flushed,) = alerts.flush()
    assert time.monotonic() - started < 5
    assert "no answer within 0.5 s" in str(flushed.left)
    assert len(waiting(project)) == 1


def test_what_a_killed_process_was_sending_is_delivered(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with silent_server() as port:
        monkeypatch.setenv("SLACK_WEBHOOK_URL", f"http://127.0.0.1:{port}/services/x")
        process = multiprocessing.get_context("fork").Process(target=alerts.send, args=[failure()])
        process.start()
        while not waiting(project):
            time.sleep(0.01)
        process.kill()
        process.join()
    with webhook() as server:
        monkeypatch.setenv("SLACK_WEBHOOK_URL", server.url)
        alerts.flush()
    assert len(server.bodies) == 1


def test_two_processes_that_flush_deliver_each_message_once(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = [failure(stage=f"stage {number}") for number in range(6)]
    lose(monkeypatch, *stages)
    with webhook() as server:
        monkeypatch.setenv("SLACK_WEBHOOK_URL", server.url)
        fork = multiprocessing.get_context("fork")
        processes = [fork.Process(target=alerts.flush, kwargs={"patient": True}) for _ in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    assert len(server.bodies) == len(stages)
    assert waiting(project) == []


def test_one_message_of_several_says_what_each_of_them_knows() -> None:
    drifts = [
        alerts.Event(kind="drift", summary="moved", details={name: f"PSI {value}"})
        for name, value in (("a", 1), ("b", 2))
    ]
    assert alerts.Event.of_many(drifts).details == {"a": "PSI 1", "b": "PSI 2"}
    without_report = [
        alerts.Event.of_failure(DataRejected(day, []), pipeline="inference", partition=day)
        for day in DAYS[:2]
    ]
    assert alerts.Event.of_many(without_report).times == 2


def test_twenty_failures_at_once_are_few_messages_that_name_each_partition(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "SIMILAR_SECONDS", 60.0)
    monkeypatch.setattr(sender, "TOTAL_SECONDS", 60.0)
    monkeypatch.setattr(sender, "COLLECT_SHARE", 0.5 / 60)
    rejected = [
        alerts.Event.of_failure(
            DataRejected(day, [Violation(check="too_few_rows", detail="3 rows")], f"{day}.json"),
            pipeline="inference",
            stage="validate",
            partition=day,
        )
        for day in DAYS
    ]
    with webhook() as server, ThreadPoolExecutor(len(DAYS)) as pool:
        monkeypatch.setenv("SLACK_WEBHOOK_URL", server.url)
        sent = list(pool.map(alerts.send, rejected))
    assert sent == [[alerts.Delivery("slack")]] * len(DAYS)
    told = "".join(shown(server))
    assert len(server.bodies) <= 5
    assert "times" in told
    assert all(f"Partition {day} was rejected" in told and f"{day}.json" in told for day in DAYS)
    assert waiting(project) == []


def test_what_waits_is_one_message_for_each_kind(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for event in [*map(failure, DAYS), failure(stage="score")]:
        outbox.put("slack", event)
    with webhook() as server:
        monkeypatch.setenv("SLACK_WEBHOOK_URL", server.url)
        (flushed,) = alerts.flush()
    assert (flushed.delivered, flushed.left) == (21, None)
    many, one = shown(server)
    assert "20 times" in many
    assert all(f"no space for {day}" in many for day in DAYS)
    assert "training / score / 2026-03-01" in one


def test_what_is_odd_in_the_outbox_stops_no_other_message(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = outbox.folder() / "slack"
    (place / "0-a-folder.json").mkdir(parents=True)
    (place / "0-a-circle.json").symlink_to("0-a-circle.json")
    with webhook() as server:
        monkeypatch.setenv("SLACK_WEBHOOK_URL", server.url)
        assert alerts.send(failure()) == [alerts.Delivery("slack")]
        done = CliRunner().invoke(app, ["alert", "flush"])
    assert len(server.bodies) == 1
    assert done.exit_code == 1
    assert "slack: 2 left, 2 not readable" in " ".join(done.stdout.split())


def test_an_outbox_that_cannot_be_read_is_not_called_empty(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed() -> list[outbox.Backlog]:
        raise PermissionError(13, "Permission denied", f"{outbox.folder()}")

    monkeypatch.setattr(outbox, "backlogs", closed)
    done = CliRunner().invoke(app, ["alert", "flush"])
    assert done.exit_code == 1
    assert "outbox: 0 left (PermissionError" in " ".join(done.stdout.split())


def test_a_channel_that_is_no_longer_there_keeps_its_messages_and_says_so(
    project: Path, add_channel: AddChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(monkeypatch, failure())
    monkeypatch.delenv("SLACK_WEBHOOK_URL")
    outbox.put("pager", failure())
    lines = {one.channel: str(one.left) for one in alerts.flush()}
    assert "it is not configured any more" in lines["slack"]
    assert "no such channel any more" in lines["pager"]
    assert len(waiting(project)) == 2


def test_a_corrected_setting_lets_out_what_waited_for_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mailbox() as box:
        use(monkeypatch, box.port)
        monkeypatch.setenv("SMTP_TO", "a@example.org; b@example.org")
        alerts.send(failure())
        monkeypatch.setenv("SMTP_TO", "a@example.org, b@example.org")
        alerts.flush()
    assert box.recipients == [["a@example.org", "b@example.org"]]


def test_the_command_says_what_was_sent_and_what_is_left(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flush(*options: str) -> Any:
        return CliRunner().invoke(app, ["alert", "flush", *options])

    assert "none waits" in flush().stdout
    with webhook(403, b"invalid_token") as server:
        monkeypatch.setenv("SLACK_WEBHOOK_URL", server.url)
        alerts.send(failure())
        done = flush()
    assert done.exit_code == 1
    assert "0 sent; slack: 1 left, 1 refused" in " ".join(done.stdout.split())
    with webhook() as server:
        monkeypatch.setenv("SLACK_WEBHOOK_URL", server.url)
        assert flush().exit_code == 1
        done = flush("--refused")
    assert done.exit_code == 0, done.stdout
    assert "1 sent" in done.stdout
    assert len(server.bodies) == 1


def test_a_test_message_that_fails_is_not_kept(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(monkeypatch, alerts.Event.test())
    assert waiting(project) == []


def test_a_file_that_is_no_message_stays_and_the_others_go(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(monkeypatch, failure())
    (project / "var/alerts/outbox/slack/0.json").write_text("{half")
    with webhook() as server:
        monkeypatch.setenv("SLACK_WEBHOOK_URL", server.url)
        (flushed,) = alerts.flush()
    assert flushed.delivered == 1
    assert "1 not readable" in str(flushed.left)
    assert len(server.bodies) == 1


def test_a_process_that_hangs_while_it_sends_does_not_hold_up_other_channels(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "TOTAL_SECONDS", 1.0)
    with mailbox() as box, ExitStack() as held:
        use(monkeypatch, box.port)
        monkeypatch.setenv("SLACK_WEBHOOK_URL", f"http://127.0.0.1:{free_port()}/services/x")
        held.enter_context(outbox.lock("slack", end=0))
        sent = {one.channel: one for one in alerts.send(failure())}
    assert sent["smtp"].ok
    assert sent["slack"].error


def test_what_waits_is_for_the_owner_alone(project: Path) -> None:
    outbox.put("slack", failure())
    assert (project / "var/alerts/outbox/slack").stat().st_mode & 0o077 == 0
