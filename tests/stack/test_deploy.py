"""What is in deploy/ of every scaffold, held against schemas, linters and the house's own rules.

Nothing is started here: test_stack.py does that.
"""

from __future__ import annotations

import ast
import functools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ..support.programs import checked, tool
from ..support.scaffolds import IDS, SCAFFOLDS
from ..support.template import ROOT, Render

# For the schemas of Kubernetes; the manifests say from which version on they work.
KUBERNETES = "1.37"
CHARTS: dict[str, Any] = yaml.safe_load(
    (ROOT / "tests" / "support" / "chart_keys.yaml").read_text()
)
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)")
REQUIRED = re.compile(r"(?<!\$)\$\{(\w+):\?([^}]*)\}")
SECRET = re.compile(r"password|secret|token|_key(?![a-z])|auth[_-]?string|webhook", re.IGNORECASE)
# A secret's name or place, or a variable that holds one, is no secret.
NAMES_A_SECRET = re.compile(
    r"(name|_file|_path|\.existingSecret|\.labels\.pipeline\.password)$", re.IGNORECASE
)
# The user names that stand before a password.
USERS = "admin"
IN_ADDRESS = re.compile(r"://[^\s/:@]*:(?!\$|PASSWORD@)[^\s/@]+@")
RANDOM = re.compile(r"[0-9a-fA-F]{32,}|[A-Za-z0-9]{40,}")
# Words that only the files of one answer may use.
OWN_WORDS = {
    ("serving", "rest"): r"\bserving\b",
    ("monitoring", "prometheus"): r"prometheus|grafana|alertmanager",
    ("tracking", "mlflow_server"): r"rclone|mlflow_auth",
    ("workers", "distributed"): r"celery(?!:)|redis",
}


# The secrets of services that run no stage, and so need no more of .env.
LOG_IN = {"MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"}
OWN_SECRETS = {
    "serving": {*LOG_IN, "SERVING_TOKEN"},
    "mlflow": {
        *LOG_IN, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MLFLOW_AUTH_ADMIN_PASSWORD",
        "MLFLOW_FLASK_SERVER_SECRET_KEY", "PGPASSWORD",
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=SCAFFOLDS, ids=IDS)
def project(request: pytest.FixtureRequest, render: Render) -> Path:
    """Return a scaffold's project, not installed."""
    return render(**yaml.safe_load(request.param.read_text()))


@pytest.fixture(scope="module")
def services(project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the services of a project as `docker compose config` resolves them."""
    copy = tmp_path_factory.mktemp("compose") / "project"
    services: dict[str, Any] = resolved(project, copy).get("services") or {}
    return services


def test_compose_files_are_valid(project: Path) -> None:
    schema = ["--builtin-schema", "vendor.compose-spec"]
    checked("check-jsonschema", *schema, *compose_files(project))


def test_compose_resolves_all_files(project: Path, services: dict[str, Any]) -> None:
    """Each file has its part in the whole: it is included, or there for `extends`."""
    files = {path.name for path in compose_files(project)} - {"compose.yaml", "common.yaml"}
    included = yaml.safe_load((project / "compose.yaml").read_text())["include"]

    assert {Path(path).name for path in included} == files
    assert bool(files) == bool(services)


def test_yaml_is_tidy(project: Path) -> None:
    config = ["--strict", "--config-file", str(ROOT / ".yamllint.yaml")]
    checked("yamllint", *config, *yaml_files(project))


def test_dockerfile_is_clean(project: Path) -> None:
    checked("hadolint", project / "deploy" / "Dockerfile")


def test_shell_in_compose_files_is_clean(services: dict[str, Any], tmp_path: Path) -> None:
    for number, script in enumerate(shell_scripts(services)):
        file = tmp_path / f"{number}.sh"
        file.write_text(script)
        # Docker sets HOSTNAME, whatever the shell.
        checked("shellcheck", "--shell=sh", "--exclude=SC3028", file)


def test_shell_scripts_are_clean() -> None:
    folders = [ROOT / "scripts", ROOT / "template"]
    scripts = [path for folder in folders for path in sorted(folder.rglob("*.sh"))]
    checked("shellcheck", ROOT / ".ci" / "run", *scripts)


def test_services_are_fit_for_a_server(services: dict[str, Any]) -> None:
    """Restarted and watched, unless it is a one-shot, and bounded in memory, logs and rights."""
    for name, service in services.items():
        assert service.get("restart") in ("unless-stopped", "no"), name
        assert int(service.get("mem_limit", 0)) >= 32 * 1024**2, name
        logging = service.get("logging", {}).get("options", {})
        assert logging.keys() >= {"max-size", "max-file"}, name
        assert "no-new-privileges:true" in service.get("security_opt", []), name
        is_one_shot = service["restart"] == "no"
        assert is_one_shot != ("healthcheck" in service), name


def test_every_one_shot_is_waited_for(services: dict[str, Any]) -> None:
    """`docker compose up --wait` fails when one ends and nothing depends on it."""
    one_shots = {name for name, service in services.items() if service["restart"] == "no"}
    waited_for = {
        other
        for service in services.values()
        for other, how in service.get("depends_on", {}).items()
        if how["condition"] == "service_completed_successfully"
    }
    assert one_shots == waited_for


def test_ports_are_open_to_this_machine_only(services: dict[str, Any]) -> None:
    published = [port for service in services.values() for port in service.get("ports", [])]

    assert [port for port in published if port.get("host_ip") != "127.0.0.1"] == []
    numbers = [port["published"] for port in published]
    assert len(numbers) == len(set(numbers))
    assert not any("network_mode" in service for service in services.values())


def test_a_service_knows_no_secret_but_its_own(services: dict[str, Any]) -> None:
    for name, allowed in OWN_SECRETS.items():
        known = {key for key in services.get(name, {}).get("environment", {}) if SECRET.search(key)}
        assert known - allowed == set(), name


def test_images_of_others_are_pinned(services: dict[str, Any]) -> None:
    """By a tag with a version in it; the project's own image is built."""
    for name, service in services.items():
        if "build" not in service:
            assert is_pinned(service["image"]), name


def test_required_variables_are_made_or_explained(project: Path) -> None:
    """`poe stack up` gives a random value to what is asked for in its words."""
    generated = generated_by_stack(project)
    explained = (project / ".env.example").read_text()
    for path in compose_files(project):
        text = path.read_text()
        made = set(generated.findall(text))
        for name, message in REQUIRED.findall(text):
            where = f"{path.name}: {name}"
            assert name in made or re.search(rf"^#? ?{name}=", explained, re.MULTILINE), where
            assert message, where
        for name in made:
            assert SECRET.search(name), f"{path.name}: {name} is no secret, and would be random"


def test_every_password_is_asked_for(project: Path) -> None:
    """A secret without a value ends with a sentence, at one place at least, not with an empty one.

    Compose itself only warns of a variable that is not set.
    """
    texts = [path.read_text() for path in compose_files(project)]
    used = {name for text in texts for name in VARIABLE.findall(text)}
    required = {name for text in texts for name, _ in REQUIRED.findall(text)}
    defaulted = {name for text in texts for name in re.findall(r"\$\{(\w+):?-", text)}
    assert {name for name in used if SECRET.search(name)} - required - defaulted == set()


def test_no_secret_is_in_a_file(project: Path) -> None:
    for path in [*(project / "deploy").rglob("*"), project / "compose.yaml"]:
        if path.is_file():
            text = path.read_text()
            assert not IN_ADDRESS.search(text), path
            assert not RANDOM.search(re.sub(r"@sha256:\w+", "", text)), path
    for path in yaml_files(project):
        for key, value in named_values(path):
            literal = re.sub(r"\$\{\{[^}]*\}\}|\$\{[^}]*\}", "", value).strip(' :,"')
            assert literal in ("", USERS) or "$$" in literal, f"{path.name}: {key}"


def test_manifests_are_valid(project: Path) -> None:
    manifests = [path for path in kubernetes_files(project) if is_manifest(path)]
    if manifests:
        checked("kubernetes-validate", "--strict", "-k", KUBERNETES, *manifests)


def test_manifests_are_safe(project: Path) -> None:
    for path in filter(is_manifest, kubernetes_files(project)):
        pods = [pod for document in documents(path) for pod in pods_of(document)]
        assert pods, path.name
        for pod in pods:
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert pod["automountServiceAccountToken"] is False
            for container in pod["containers"]:
                security = container["securityContext"]
                assert security["readOnlyRootFilesystem"] is True
                assert security["allowPrivilegeEscalation"] is False
                assert security["capabilities"] == {"drop": ["ALL"]}
                assert {mount["mountPath"] for mount in container["volumeMounts"]} >= {"/app/var"}
                assert container["resources"].keys() == {"requests", "limits"}
                assert is_pinned(container["image"])


def test_kubernetes_runs_the_image_as_its_user(project: Path) -> None:
    """Who may not write to /app/var cannot work; files of volumes get the pod's group."""
    (user,) = re.findall(r"useradd --uid (\d+)", (project / "deploy" / "Dockerfile").read_text())
    for path in kubernetes_files(project):
        found = re.findall(r"(?:runAsUser|fsGroup|\buid|\bgid): (\d+)", path.read_text())
        assert set(found) <= {user}, path.name


def test_serving_on_kubernetes_is_whole(project: Path) -> None:
    """Probed where the service answers, reached by the port it opens, and found by its labels."""
    path = project / "deploy" / "kubernetes" / "serving.yaml"
    if not path.exists():
        return
    kinds = {document["kind"]: document for document in documents(path)}
    assert kinds.keys() == {
        *("Deployment", "Service", "HorizontalPodAutoscaler"),
        *("PodDisruptionBudget", "NetworkPolicy"),
    }
    template = kinds["Deployment"]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    environment = {variable["name"]: variable for variable in container["env"]}
    (port,) = container["ports"]
    assert f"{port['containerPort']}" == environment["SERVING_PORT"]["value"]
    probes = {name: container[f"{name}Probe"] for name in ("startup", "liveness", "readiness")}
    assert all(probe["httpGet"]["port"] == port["name"] for probe in probes.values())
    assert probes["liveness"]["httpGet"]["path"] == "/health/live"
    assert probes["readiness"]["httpGet"]["path"] == "/health/ready"
    labels = template["metadata"]["labels"].items()
    for kind, at in [("Service", ("selector",)), ("NetworkPolicy", ("podSelector", "matchLabels"))]:
        assert functools.reduce(dict.__getitem__, at, kinds[kind]["spec"]).items() <= labels
    assert kinds["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"].items() <= labels
    assert kinds["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == "serving"
    assert "replicas" not in kinds["Deployment"]["spec"]


def test_readme_lists_what_the_secret_must_hold(project: Path) -> None:
    readme = (project / "deploy" / "kubernetes" / "README.md").read_text()
    for path in kubernetes_files(project):
        keys = re.findall(r"secretKeyRef: .*\bkey: (\w+)", path.read_text())
        assert [key for key in keys if f"`{key}`" not in readme] == [], path.name


def test_values_have_keys_of_the_chart(project: Path) -> None:
    for path in kubernetes_files(project):
        if not is_manifest(path):
            (values,) = documents(path)
            known = CHARTS[path.name]["keys"]
            unknown = [key for key in flat_keys(values) if not is_below(key, known)]
            assert unknown == [], path.name


def test_every_file_for_kubernetes_says_what_it_is(project: Path) -> None:
    for path in kubernetes_files(project):
        first = path.read_text().splitlines()[0]
        assert first.startswith("# "), path.name
        assert first.endswith("; not executed in CI."), path.name
        if path.name in CHARTS:
            chart = CHARTS[path.name]["chart"]
            assert f", written for chart {chart};" in first, path.name
            assert f"--version {chart}" in path.read_text(), path.name


def test_recorded_keys_are_used(render: Render) -> None:
    used: dict[str, set[str]] = {name: set() for name in CHARTS}
    for scaffold in SCAFFOLDS:
        for path in kubernetes_files(render(**yaml.safe_load(scaffold.read_text()))):
            if path.name in CHARTS:
                used[path.name].update(flat_keys(documents(path)[0]))
    for name, chart in CHARTS.items():
        assert chart["keys"] == sorted(chart["keys"])
        stale = [key for key in chart["keys"] if not any(is_below(k, [key]) for k in used[name])]
        assert stale == [], name


@pytest.mark.parametrize(("question", "answer"), OWN_WORDS)
def test_no_file_in_deploy_names_another_variant(project: Path, question: str, answer: str) -> None:
    given = yaml.safe_load((project / ".copier-answers.yml").read_text())
    if given[question] == answer:
        return
    words = re.compile(OWN_WORDS[question, answer], re.IGNORECASE)
    for path in [*(project / "deploy").rglob("*"), project / "compose.yaml"]:
        name = path.relative_to(project)
        assert not words.search(f"{name}"), name
        match = path.is_file() and words.search(path.read_text())
        assert not match, f"{name}: {match}"
        assert path.is_file() or any(path.iterdir()), f"{name} is empty"


def resolved(project: Path, copy: Path) -> dict[str, Any]:
    """Return a project's compose.yaml as Docker understands it, with a value for each secret."""
    ignore = shutil.ignore_patterns("src", "tests", "data")
    shutil.copytree(project, copy, ignore=ignore)
    lines = (project / ".env.example").read_text().splitlines()
    made = {
        name
        for path in compose_files(project)
        for name in generated_by_stack(project).findall(path.read_text())
    }
    (copy / ".env").write_text("\n".join([*lines, *(f"{name}=made" for name in sorted(made)), ""]))
    done = subprocess.run(
        [tool("docker-compose"), "config", "--format", "json"],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
    )
    # The program of this package ends with 0, come what may.
    assert not done.stderr, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def generated_by_stack(project: Path) -> re.Pattern[str]:
    """Return what finds, in a compose file, the variables that `poe stack up` makes."""
    (file,) = project.glob("src/*/cli/stack.py")
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "GENERATED":
            assert isinstance(node.value, ast.Call)
            return re.compile(ast.literal_eval(node.value.args[0]))
    raise AssertionError("stack.py has no GENERATED")


def compose_files(project: Path) -> list[Path]:
    return [project / "compose.yaml", *sorted((project / "deploy" / "compose").glob("*"))]


def kubernetes_files(project: Path) -> list[Path]:
    return sorted((project / "deploy" / "kubernetes").glob("*.yaml"))


def yaml_files(project: Path) -> list[Path]:
    """Return the YAML files that someone has written, unlike the record of the answers."""
    files = {path for kind in ("yaml", "yml") for path in project.rglob(f"*.{kind}")}
    return sorted(files - {project / ".copier-answers.yml"})


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def is_manifest(path: Path) -> bool:
    """Return whether a file is for `kubectl apply`, and not a chart's values."""
    return all("kind" in document for document in documents(path))


def pods_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    spec = document.get("spec", {})
    return [spec["template"]["spec"]] if "template" in spec else []


def is_pinned(image: str) -> bool:
    """Return whether an image has a tag that is a version."""
    name, _, tag = image.partition("@")[0].rpartition(":")
    return bool(name) and "/" not in tag and bool(re.search(r"\d", tag))


def shell_scripts(services: dict[str, Any]) -> Iterator[str]:
    """Yield what services give to a shell, as the shell gets it."""
    for service in services.values():
        words = [*(service.get("entrypoint") or []), *(service.get("command") or [])]
        if words and words[0] in ("sh", "bash"):
            yield words[-1].replace("$$", "$")
        test = service.get("healthcheck", {}).get("test", [""])
        if test[0] == "CMD-SHELL":
            yield test[1].replace("$$", "$")


def flat_keys(values: Any, above: str = "") -> list[str]:
    """Return the way to each value, like `workers.replicas`; a list's items share one way."""
    if isinstance(values, dict) and values:
        ways = [flat_keys(item, f"{above}.{key}".lstrip(".")) for key, item in values.items()]
    elif isinstance(values, list) and any(isinstance(item, dict) for item in values):
        ways = [flat_keys(item, f"{above}[]") for item in values]
    else:
        return [above]
    return [way for some in ways for way in some]


def is_below(key: str, known: list[str]) -> bool:
    return any(key == other or key.startswith((f"{other}.", f"{other}[")) for other in known)


def named_values(path: Path) -> Iterator[tuple[str, str]]:
    """Yield what looks like a secret by its name, wherever in a file, with its value."""
    for document in yaml.safe_load_all(path.read_text()):
        yield from secrets_in(document, "")


def secrets_in(node: Any, above: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        # A variable of a container.
        if isinstance(node.get("name"), str) and "value" in node:
            node = {node["name"]: node["value"]}
        for key, value in node.items():
            yield from secrets_in(value, f"{above}.{key}")
    elif isinstance(node, list):
        for item in node:
            yield from secrets_in(item, above)
    elif isinstance(node, str) and node:
        key = above.rpartition(".")[2]
        if SECRET.search(key) and not NAMES_A_SECRET.search(above):
            yield above, node
