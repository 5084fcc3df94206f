"""Runs jobs of workflow files on this machine, step by step, as GitHub's and GitLab's runners do.

What a job may use is what is here: an action or an expression that is not known fails.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from .projects import find_python
from .template import ROOT, git

TEMPLATE = ROOT / "template"
CI = TEMPLATE / ".github" / "workflows" / "ci.yml"
UPDATE = TEMPLATE / ".github" / "workflows" / "update.yml"
GITLAB = TEMPLATE / ".gitlab-ci.yml"

HOST = "git.example.org"
# What new releases change.
STAGE = "src/flight_delays/stages/score.py"
REPOSITORY = "team/project"
# A few of the project's tests and one candidate: render/test_scaffolds.py runs all of them.
FEW_TESTS = {"PYTEST_ADDOPTS": "tests/core/test_settings.py"}
ONE_CANDIDATE = {"PIPELINE_TRAINING__CANDIDATES": '["linear"]', "PIPELINE_TRAINING__TRIALS": "1"}
# How this machine reaches package indexes, which is not the project's business.
FROM_HERE = (
    *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT", "UV_NATIVE_TLS"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("PIP_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_PYTHON_DOWNLOADS", "TMPDIR"),
)
# GitHub's shells, by how a workflow names them. Without a name a pipe's first part may fail.
SHELLS = {
    None: ["bash", "-e"],
    "bash": ["bash", "--noprofile", "--norc", "-eo", "pipefail"],
}


@dataclass
class Result:
    """What became of a job.

    Attributes:
        log: Everything its steps have printed.
        outcomes: success, failure or skipped, by the step's id, name or command.
        summary: What GitHub shows on the run's page.
        workspace: Where it ran.
    """

    log: str = ""
    outcomes: dict[str, str] = field(default_factory=dict)
    summary: str = ""
    workspace: Path = Path()

    @property
    def succeeded(self) -> bool:
        return "failure" not in self.outcomes.values()


@dataclass
class Forge:
    """A place that holds a repository and runs its jobs, each on a fresh machine.

    Attributes:
        folder: Where everything is but the machines.
        origin: The bare repository; jobs know it by an address below `HOST`.
        machines: Where the machines of all tests are made anew, in the same places, so that what
            one has compiled of its packages is what the next one would.
        variables: Of every step, on top of what the runner sets.
        secrets: By name.
    """

    folder: Path
    origin: Path
    machines: Path
    variables: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    jobs: int = 0

    def branches(self) -> list[str]:
        return git(self.origin, "branch", "--format=%(refname:short)").split()

    def pushed(self, path: str) -> str:
        """Return a file as it was pushed to the branch of the update."""
        return git(self.origin, "show", f"template-update:{path}")

    def edit_stage(self) -> None:
        """Let the team end the stage that `release` changes with a line of its own."""
        git(self.folder, "clone", "--quiet", str(self.origin), "ours")
        with (self.folder / "ours" / STAGE).open("a") as file:
            file.write("\n# Ours.\n")
        git(self.folder / "ours", "commit", "--quiet", "--all", "--message=Ours")
        git(self.folder / "ours", "push", "--quiet")

    def machine(self, address: str) -> tuple[Path, dict[str, str]]:
        """Return a new machine's folder and its variables: nothing of this one's settings.

        Args:
            address: By what the job calls the repository.
        """
        self.jobs += 1
        machine = self.machines / f"machine-{self.jobs}"
        shutil.rmtree(machine, ignore_errors=True)
        (machine / "bin").mkdir(parents=True)
        (machine / "home").mkdir()
        python = Path(sys.base_prefix) / "bin"
        variables = {name: os.environ[name] for name in FROM_HERE if name in os.environ}
        variables |= {
            "PATH": f"{machine / 'bin'}:{python}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(machine / "home"),
            "UV_CACHE_DIR": os.environ["UV_CACHE_DIR"],
            "PYTHONPYCACHEPREFIX": str(self.machines / "bytecode"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "CI": "true",
        }
        config = machine / "home" / ".gitconfig"
        git(
            machine, "config", "--file", str(config), f"url.file://{self.origin}.insteadOf", address
        )
        return machine, variables

    def github(self, workflow: Path, job: str) -> Result:
        """Run a job of a GitHub workflow on the newest commit of main."""
        document = yaml.safe_load(workflow.read_text())
        shell = document.get("defaults", {}).get("run", {}).get("shell")
        server = f"https://{HOST}"
        address = f"{server}/{REPOSITORY}"
        machine, variables = self.machine(address)
        files = {name: machine / name.lower() for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        variables |= {
            "GITHUB_ACTIONS": "true",
            "GITHUB_SERVER_URL": server,
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_REF_NAME": "main",
            "GITHUB_RUN_ID": "7",
            **{name: str(path) for name, path in files.items()},
            **self.variables,
        }
        result = Result(workspace=machine / "workspace")
        steps: dict[str, Any] = {}
        known = {"secrets": self.secrets, "steps": steps}
        task = document["jobs"][job]
        for step in task["steps"]:
            name = step.get("id") or step.get("name") or step.get("run") or step["uses"]
            files["GITHUB_OUTPUT"].write_text("")
            files["GITHUB_STEP_SUMMARY"].touch()
            if not is_due(step.get("if", ""), known, result.succeeded):
                result.outcomes[name] = "skipped"
            elif "uses" in step:
                action = step["uses"].partition("@")[0]
                ACTIONS[action](self, machine, step.get("with", {}))
                result.outcomes[name] = "success"
            else:
                given = {**task.get("env", {}), **step.get("env", {})}
                environment = {**variables, **{key: fill(v, known) for key, v in given.items()}}
                run(SHELLS[shell], step["run"], environment, name, result)
            outputs = files["GITHUB_OUTPUT"].read_text().split("\n")
            steps[name] = {
                "outcome": result.outcomes[name],
                "outputs": dict(line.split("=", 1) for line in outputs if line),
            }
        result.summary = files["GITHUB_STEP_SUMMARY"].read_text()
        return result

    def gitlab(self, file: Path, job: str, source: str) -> Result:
        """Run a job of a GitLab pipeline on the newest commit of main.

        Args:
            file: The project's .gitlab-ci.yml.
            job: One of it.
            source: How the pipeline came to be: push, merge_request_event or schedule.
        """
        document = yaml.safe_load(file.read_text())
        address = f"https://oauth2:{self.secrets['TEMPLATE_UPDATE_TOKEN']}@{HOST}/{REPOSITORY}.git"
        machine, variables = self.machine(address)
        workspace = machine / "workspace"
        clone(self.origin, workspace)
        git(workspace, "checkout", "--quiet", "--detach")
        task = {**document["default"], **document.get(document[job].get("extends"), {})}
        task |= document[job]
        # The runner brings the cache back; that it is elsewhere here spares its copy.
        for path in task["cache"]["paths"]:
            (workspace / path / "wheels").mkdir(parents=True)
            (workspace / path / "wheels" / "numpy.whl").touch()
        python = ["uv", "venv", "--quiet", "--seed", "--python"]
        version = task["image"].removeprefix("python:")
        subprocess.run([*python, find_python(version), machine / "image"], check=True)
        variables |= {
            **document["variables"],
            **self.secrets,
            "PATH": f"{machine / 'image' / 'bin'}:{variables['PATH']}",
            "UV_CACHE_DIR": variables["UV_CACHE_DIR"],
            "GITLAB_CI": "true",
            "CI_PIPELINE_SOURCE": source,
            "CI_COMMIT_BRANCH": "main",
            "CI_DEFAULT_BRANCH": "main",
            "CI_PROJECT_DIR": str(workspace),
            "CI_PROJECT_PATH": REPOSITORY,
            "CI_SERVER_HOST": HOST,
            **task.get("variables", {}),
            **self.variables,
        }
        result = Result(workspace=workspace)
        script = "\n".join([*task["before_script"], *task["script"]])
        run(["bash", "-eo", "pipefail"], script, variables, job, result)
        return result


def run(
    shell: list[str], script: str, variables: dict[str, str], name: str, result: Result
) -> None:
    """Run a script in the job's workspace, and note what became of it."""
    file = result.workspace.parent / "script.sh"
    file.write_text(script)
    done = subprocess.run(
        [*shell, str(file)],
        cwd=result.workspace,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    result.log += done.stdout
    result.outcomes[name] = "success" if done.returncode == 0 else "failure"


def is_due(condition: str, known: dict[str, Any], succeeded: bool) -> bool:
    """Return whether a step runs: after a failure only if its condition says so."""
    whatever = "!cancelled()" in condition
    wanted = condition.replace("!cancelled()", "").strip().removesuffix("&&").strip()
    return (succeeded or whatever) and (not wanted or bool(value_of(wanted, known)))


def fill(text: str, known: dict[str, Any]) -> str:
    """Return a text with its expressions replaced."""
    return re.sub(r"\$\{\{(.*?)\}\}", lambda match: value_of(match[1], known), str(text))


def value_of(expression: str, known: dict[str, Any]) -> str:
    """Return the first of the names joined by `||` that has a value."""
    for name in expression.split("||"):
        value: Any = known
        area, *keys = name.strip().split(".")
        value = known[area]
        for key in keys:
            value = value.get(key, {})
        if value:
            return str(value)
    return ""


def check_out(forge: Forge, machine: Path, inputs: dict[str, Any]) -> None:
    """Do what actions/checkout does: the newest commit only, and no password left behind."""
    assert inputs == {"persist-credentials": False}
    clone(forge.origin, machine / "workspace", "--depth=1")
    git(machine / "workspace", "remote", "set-url", "origin", f"https://{HOST}/{REPOSITORY}")


def set_up_uv(forge: Forge, machine: Path, inputs: dict[str, Any]) -> None:
    """Do what astral-sh/setup-uv does: uv is on PATH; its cache is the one of the tests."""
    assert inputs == {"enable-cache": True, "cache-dependency-glob": "uv.lock"}
    uv = shutil.which("uv")
    assert uv
    (machine / "bin" / "uv").symlink_to(uv)


ACTIONS = {"actions/checkout": check_out, "astral-sh/setup-uv": set_up_uv}


def clone(origin: Path, folder: Path, *options: str) -> None:
    """Clone the main branch of a repository."""
    address = f"file://{origin}"
    git(folder.parent, "clone", "--quiet", "--branch=main", *options, address, folder.name)


def release(repository: Path, version: str, text: str) -> None:
    """Release a version of a template in which a stage ends with a text."""
    stage = STAGE.replace("flight_delays", "{{package_name}}")
    with (repository / "template" / stage).open("a") as file:
        file.write(text)
    git(repository, "commit", "--quiet", "--all", f"--message={version}")
    git(repository, "tag", version)


def take_back(repository: Path) -> None:
    """Leave a template with its first version only."""
    git(repository, "reset", "--quiet", "--hard", "v0.1.0")
    for tag in git(repository, "tag", "--list").split():
        if tag != "v0.1.0":
            git(repository, "tag", "--delete", tag)


@dataclass(frozen=True)
class Request:
    """What a service was asked."""

    path: str
    token: str
    body: dict[str, Any]


@dataclass
class Service:
    """A web service that keeps what it was asked.

    Attributes:
        answers: Status and content, by the word in the path that they belong to.
    """

    url: str
    answers: dict[str, tuple[int, dict[str, Any]]]
    requests: list[Request] = field(default_factory=list)


@contextmanager
def service(answers: dict[str, tuple[int, dict[str, Any]]]) -> Iterator[Service]:
    """Run a web service that takes JSON and answers it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            request = Request(self.path, self.headers.get("Authorization", ""), body)
            running.requests.append(request)
            [word] = [word for word in running.answers if word in self.path.split("/")]
            status, content = running.answers[word]
            answer = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running = Service(f"http://127.0.0.1:{server.server_port}", answers)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()
