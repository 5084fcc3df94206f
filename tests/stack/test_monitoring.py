"""Monitoring: rules, dashboards and channels hold together, and an alert arrives for real.

That rules and dashboards show exactly what runs push is a test of the generated project.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from receivers import Webhook, free_port, webhook

from ..support.projects import Project, make_installed_project
from ..support.scaffolds import IDS, SCAFFOLDS
from ..support.services import install, running, wait_for_http
from ..support.template import Render

WATCHED: dict[str, Any] = {"monitoring": "prometheus", "serving": "rest"}
# What others than the project's own code count.
OTHERS = {
    *("up", "probe_success", "ALERTS", "push_time_seconds", "push_failure_time_seconds"),
    *("alertmanager_notifications_total", "alertmanager_notifications_failed_total"),
    "process_resident_memory_bytes",
}
# Services that Prometheus does not ask.
NOT_ASKED = {
    # The API server's page says how they are.
    *("airflow-scheduler", "airflow-dag-processor", "airflow-triggerer"),
    # They answer to nobody, and show as runs that do not end; Docker watches them.
    *("airflow-worker", "dagster-daemon", "dagster-worker", "prefect-worker"),
    # It asks itself as localhost; the others are only looked at.
    *("prometheus", "blackbox", "grafana"),
}
# Debian's names of programs.
PROGRAMS = {"prometheus": "prometheus", "pushgateway": "prometheus-pushgateway"}
# The series that a metric of prometheus_client has, as far as rules and dashboards may use them.
SERIES = {"Counter": "_total", "Gauge": "", "Histogram": "_bucket"}
EMAIL = {
    "SMTP_HOST": "mail.example.org",
    "SMTP_FROM": "Zoë <a@b.org>",
    "SMTP_TO": "c@d.org,e@f.org",
}


@pytest.fixture
def deploy(render: Render) -> Path:
    """Return deploy/ of a project that has everything to watch."""
    return render(**WATCHED) / "deploy"


def test_every_alert_says_what_to_do(deploy: Path) -> None:
    runbook = (deploy / "prometheus" / "RUNBOOK.md").read_text()
    alerts = alerts_in(deploy)

    assert re.findall(r"^## (\w+)", runbook, re.MULTILINE) == [alert["alert"] for alert in alerts]
    for alert in alerts:
        name, annotations = alert["alert"], alert["annotations"]
        assert alert["labels"]["severity"] in ("critical", "warning"), name
        assert annotations.keys() == {"summary", "description", "runbook"}, name
        assert re.search(r"\$(value|labels)", annotations["description"]), name
        assert annotations["runbook"] == f"deploy/prometheus/RUNBOOK.md#{name.lower()}"


def test_every_alert_is_tested_to_fire_and_not_to_fire(deploy: Path) -> None:
    fires: dict[str, set[bool]] = {}
    for file in deploy.glob("prometheus/*_test.yml"):
        for case in yaml.safe_load(file.read_text())["tests"]:
            for test in case.get("promql_expr_test", []):
                for name in re.findall(r'alertname="(\w+)"', test["expr"]):
                    fires.setdefault(name, set()).add(bool(test["exp_samples"]))
            for test in case.get("alert_rule_test", []):
                fires.setdefault(test["alertname"], set()).add(bool(test["exp_alerts"]))

    assert fires == {alert["alert"]: {True, False} for alert in alerts_in(deploy)}


def test_dashboards_are_whole(deploy: Path) -> None:
    dashboards = dashboards_in(deploy)
    assert dashboards.keys() == {"pipelines", "data", "model", "serving"}
    for name, dashboard in dashboards.items():
        assert dashboard["uid"] == name
        assert dashboard["description"]
        panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
        assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
        for panel in panels:
            where = f"{name}: {panel['title']}"
            assert panel["description"].endswith("."), where
            assert panel["fieldConfig"]["defaults"]["unit"], where
            assert panel["datasource"] == {"type": "prometheus", "uid": "prometheus"}, where
            assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
        assert not overlapping(dashboard["panels"]), name
    source = yaml.safe_load(
        (deploy / "grafana/provisioning/datasources/prometheus.yaml").read_text()
    )
    assert [entry["uid"] for entry in source["datasources"]] == ["prometheus"]


def test_rules_and_dashboards_name_series_that_exist(deploy: Path) -> None:
    """The pipelines' own are compared in the generated project, where they can be pushed."""
    used = {name for expression in expressions(deploy) for name in series_in(expression)}
    recorded = {rule["record"] for rule in rules_in(deploy) if "record" in rule}

    assert {name for name in used if not name.startswith("pipeline_")} == (
        OTHERS | recorded | served(deploy.parent)
    )


@pytest.mark.parametrize("path", SCAFFOLDS, ids=IDS)
def test_everything_that_is_asked_is_a_service(path: Path, render: Render) -> None:
    project = render(**yaml.safe_load(path.read_text()))
    config = project / "deploy" / "prometheus" / "prometheus.yml"
    if not config.exists():
        assert not list(project.rglob("*prometheus*.py"))
        return
    services = {
        name
        for file in (project / "deploy" / "compose").glob("*.yaml")
        for name, service in (yaml.safe_load(file.read_text()).get("services") or {}).items()
        if file.name != "common.yaml" and service.get("restart") != "no"
    }
    read = yaml.safe_load(config.read_text())
    asked = [*read["scrape_configs"], *read["alerting"]["alertmanagers"]]
    targets = {
        target for job in asked for entry in job["static_configs"] for target in entry["targets"]
    }
    assert {target.partition(":")[0] for target in targets} - {"localhost"} <= services
    assert services - {target.partition(":")[0] for target in targets} <= NOT_ASKED
    assert ("serving:8000" in targets) == (project / "deploy" / "compose" / "serving.yaml").exists()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"SMTP_SECURITY": "ssl"}, "SMTP_SECURITY is 'ssl', not one of starttls, tls, none"),
        ({"SMTP_SECURITY": "tls", "SMTP_PORT": "2465"}, "works on port 465 only"),
        ({"SMTP_TO": ""}, "SMTP_HOST is set, but SMTP_TO is not"),
        ({"SMTP_TO": "a@b.org; c@d.org"}, "SMTP_TO is 'a@b.org; c@d.org', and addresses have comm"),
        ({"SMTP_TO": "A <a@b.org> c@d.org"}, "addresses have commas in between"),
    ],
)
def test_e_mail_that_cannot_work_is_refused(
    deploy: Path, tmp_path: Path, variables: dict[str, str], said: str
) -> None:
    done = start_alertmanager(deploy, tmp_path, {**EMAIL, **variables})
    assert done.returncode == 1
    assert said in done.stderr


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ("mail.example.org:587", True)),
        ({"SMTP_SECURITY": "tls"}, ("mail.example.org:465", False)),
        ({"SMTP_SECURITY": "none", "SMTP_PORT": "2525"}, ("mail.example.org:2525", False)),
    ],
)
def test_e_mail_is_sent_as_env_says(
    deploy: Path, tmp_path: Path, variables: dict[str, str], expected: tuple[str, bool]
) -> None:
    login = {"SMTP_USER": 'a "b" \\c'}
    done = start_alertmanager(deploy, tmp_path, {**EMAIL, **login, **variables})
    assert done.returncode == 0, done.stderr

    (receiver,) = yaml.safe_load((tmp_path / "config.yml").read_text())["receivers"]
    (email,) = receiver["email_configs"]
    assert (email["smarthost"], email["require_tls"]) == expected
    assert (email["from"], email["to"]) == (EMAIL["SMTP_FROM"], EMAIL["SMTP_TO"])
    assert email["auth_username"] == login["SMTP_USER"]
    assert email["auth_password_file"] == f"{tmp_path}/smtp_password"


@pytest.fixture(scope="session")
def programs() -> None:
    """Have Debian's Prometheus and its tools on this machine."""
    install()


@pytest.mark.slow
@pytest.mark.usefixtures("programs")
def test_promtool_is_content(deploy: Path) -> None:
    folder = deploy / "prometheus"
    run("promtool", "check", "config", folder / "prometheus.yml")
    for file in sorted(folder.glob("*rules.yml")):
        run("promtool", "check", "rules", file)
    for file in sorted(folder.glob("*_test.yml")):
        run("promtool", "test", "rules", file)


@pytest.mark.slow
@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("variables", [{}, EMAIL], ids=["unset", "set"])
@pytest.mark.parametrize("alerting", [[], ["slack"], ["email"], ["slack", "email"]])
def test_amtool_is_content(
    render: Render, tmp_path: Path, alerting: list[str], variables: dict[str, str]
) -> None:
    """Also where a project has a channel and .env does not: Alertmanager must start."""
    (tmp_path / "smtp_password").write_text("secret")
    (tmp_path / "slack_webhook_url").write_text("https://example.org/x" if variables else "")
    done = start_alertmanager(render(alerting=alerting) / "deploy", tmp_path, variables)
    assert done.returncode == 0, done.stderr

    run("amtool", "check-config", tmp_path / "config.yml")
    (receiver,) = yaml.safe_load((tmp_path / "config.yml").read_text())["receivers"]
    assert receiver.keys() - {"name"} == (
        {f"{name}_configs" for name in alerting} if variables else set()
    )


@dataclass
class Watch:
    """Prometheus and its kin on this machine, with a project's files.

    Attributes:
        gateway: Where runs push.
        prometheus: Where to ask.
        slack: What alerts were sent.
    """

    gateway: str
    prometheus: str
    slack: Webhook

    def ask(self, query: str) -> list[dict[str, Any]]:
        """Return the series that a query finds now."""
        answer = httpx.get(
            f"{self.prometheus}/api/v1/query", params={"query": query}, trust_env=False
        )
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    def titles(self) -> list[str]:
        """Return the titles of the messages that arrived."""
        bodies = [json.loads(body) for body in self.slack.bodies]
        return [attachment["title"] for body in bodies for attachment in body["attachments"]]


@contextmanager
def watching(project: Project, folder: Path) -> Iterator[Watch]:
    """Run the services as compose would: their commands, with other ports and shorter waits."""
    folder.mkdir()
    names = ("prometheus", "pushgateway", "alertmanager")
    addresses = {name: f"127.0.0.1:{free_port()}" for name in names}
    ports = {"localhost:9090": "prometheus", "pushgateway:9091": "pushgateway"}
    ports["alertmanager:9093"] = "alertmanager"
    waits = {
        "15s": "1s",
        "group_wait: 30s": "group_wait: 5s",
        "group_interval: 5m": "group_interval: 5s",
    }
    for name in ("prometheus", "alertmanager"):
        (folder / name).mkdir()
        for file in (project.path / "deploy" / name).iterdir():
            text = file.read_text()
            for old, new in {**{k: addresses[v] for k, v in ports.items()}, **waits}.items():
                text = text.replace(old, new)
            (folder / name / file.name).write_text(text)
    compose = yaml.safe_load((project.path / "deploy/compose/prometheus.yaml").read_text())
    with ExitStack() as stack:
        slack = stack.enter_context(webhook())
        (folder / "slack_webhook_url").write_text(slack.url)
        for name in ("pushgateway", "alertmanager", "prometheus"):
            (folder / "data" / name).mkdir(parents=True)
            service = compose["services"][name]
            program = service.get("entrypoint") or [PROGRAMS[name]]
            command = [moved(word, folder) for word in (*program, *service["command"])]
            command.append(f"--web.listen-address={addresses[name]}")
            environment = {
                "ALERTMANAGER": "prometheus-alertmanager",
                "CONFIG": f"{folder}/config.yml",
                "SECRETS": f"{folder}",
            }
            log = folder / f"{name}.log"
            process = stack.enter_context(running(command, log, folder, environment=environment))
            wait_for_http(f"http://{addresses[name]}/-/ready", process, log)
        yield Watch(
            f"http://{addresses['pushgateway']}", f"http://{addresses['prometheus']}", slack
        )


def moved(word: str, folder: Path) -> str:
    """Return a word of a container's command for this machine: its files are in a folder."""
    option, equals, value = word.rpartition("=")
    if value.startswith("$"):
        value = "http://127.0.0.1"
    elif value.startswith("/etc/"):
        value = f"{folder}/{value.removeprefix('/etc/')}"
    elif option and value.startswith("/"):
        value = f"{folder}/data{value}"
    return f"{option}{equals}{value}"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("programs")
def test_rejected_data_is_told_and_the_next_success_too(sources: Path, tmp_path: Path) -> None:
    """From a real run through every program into the channel."""
    project = make_installed_project(
        sources, tmp_path / "project", orchestrator="dagster", alerting=["slack"]
    )
    small = {"PIPELINE_TRAINING__CANDIDATES": '["linear"]', "PIPELINE_TRAINING__TRIALS": "1"}
    train = (project.answers["project_slug"], "run", "training", "--partition", "2013-01-28")
    with watching(project, tmp_path / "watch") as watch:
        variables = {**small, "PROMETHEUS_PUSHGATEWAY_URL": watch.gateway}
        bad = {**variables, "PIPELINE_VALIDATION__MIN_ROWS": "1000000"}
        assert project.run(*train, check=False, variables=bad).returncode != 0

        eventually(lambda: "CRITICAL: DataRejected" in watch.titles())
        firing = {
            series["metric"]["alertname"] for series in watch.ask('ALERTS{alertstate="firing"}')
        }
        assert firing == {"DataRejected", "PipelineStageFailed"}
        assert not watch.ask("pipeline_last_success_timestamp_seconds")

        project.run(*train, variables=variables)

        eventually(lambda: "Resolved: DataRejected" in watch.titles())
        # The failed stage is but a consequence of the data.
        assert watch.titles() == ["CRITICAL: DataRejected", "Resolved: DataRejected"]
        text = json.loads(watch.slack.bodies[0])["attachments"][0]["text"]
        assert "flight-delays: training rejected its data" in text
        assert "Broken limits of the contract, by partition: 22." in text
        assert "RUNBOOK.md#datarejected" in text
        assert [series["value"][1] for series in watch.ask("pipeline_champion_version")] == ["1"]
        (success,) = watch.ask("pipeline_last_success_timestamp_seconds")
        assert success["metric"]["job"] == "flight-delays"
        assert success["metric"]["pipeline"] == "training"


def eventually(true: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.2)


def run(program: str, *arguments: str | Path) -> None:
    """Run a checker; what it finds is the test's failure."""
    command = [program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def start_alertmanager(
    deploy: Path, folder: Path, variables: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run start.sh up to where Alertmanager would start; it writes config.yml."""
    own = {"SECRETS": f"{folder}", "CONFIG": f"{folder}/config.yml", "ALERTMANAGER": "true"}
    return subprocess.run(
        ["sh", deploy / "alertmanager" / "start.sh"],
        env={"PATH": os.environ["PATH"], **own, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def rules_in(deploy: Path) -> list[dict[str, Any]]:
    """Return all rules, those of rules.yml first."""
    files = sorted(deploy.glob("prometheus/*rules.yml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def alerts_in(deploy: Path) -> list[dict[str, Any]]:
    """Return the rules that alert."""
    return [rule for rule in rules_in(deploy) if "alert" in rule]


def dashboards_in(deploy: Path) -> dict[str, dict[str, Any]]:
    """Return all dashboards by the names of their files."""
    files = (deploy / "grafana" / "dashboards").glob("*.json")
    return {file.stem: json.loads(file.read_text()) for file in files}


def expressions(deploy: Path) -> Iterator[str]:
    """Yield what rules and dashboards ask Prometheus."""
    yield from (rule["expr"] for rule in rules_in(deploy))
    for dashboard in dashboards_in(deploy).values():
        for panel in dashboard["panels"]:
            yield from (target["expr"] for target in panel.get("targets", []))
        for variable in dashboard["templating"]["list"]:
            asked = re.fullmatch(r"label_values\((.*), \w+\)", variable["definition"])
            assert asked, variable["definition"]
            yield asked[1]


def series_in(expression: str) -> set[str]:
    """Return the names of the series that an expression reads."""
    without = re.sub(r"\{[^}]*\}|\[[^]]*\]", "", expression)
    without = re.sub(r"\b(by|on|ignoring|group_left|group_right) *\([^)]*\)", "", without)
    words = re.findall(r"(?<![\w:.])([a-zA-Z_:][\w:]*)\b(?! *\()", without)
    return set(words) - {"and", "or", "unless", "bool"}


def served(project: Path) -> set[str]:
    """Return the names of the series of the service, as its code gives them."""
    (file,) = project.glob("src/*/serving/telemetry.py")
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = str(node.args[0].value)
            kind = ast.unparse(node.func).rpartition(".")[2]
            # The service's own shorthand for a gauge.
            kind = "Gauge" if kind == "_gauge" else kind
            if kind in SERIES:
                names.add(name + SERIES[kind])
    return names


def overlapping(panels: list[dict[str, Any]]) -> bool:
    """Return whether two panels of a dashboard want the same place, or one is too wide."""
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        columns, rows = range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])
        cells = {(x, y) for x in columns for y in rows}
        if cells & taken or max(columns) > 23:
            return True
        taken |= cells
    return False
