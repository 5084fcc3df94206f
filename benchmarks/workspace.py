"""A temporary folder with the template as users get it, and a project made from it."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.projects import lift_certifi

from .measure import Command

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = Path(__file__).parent
# What whoever measures has set for projects and interpreters of their own. Above all
# PYTHONDONTWRITEBYTECODE, which makes every process compile all it imports.
FOREIGN = ("AIRFLOW_", "MLFLOW_", "PIPELINE_", "PYTHON", "SLACK_", "SMTP_", "UV_PROJECT", "VIRTUAL")


class Workspace:
    """Makes each thing when it is first asked for.

    The project is the one that `copier copy --defaults` gives, but for the answers named.
    """

    def __init__(self, folder: Path, **answers: str) -> None:
        self.folder = folder
        self.answers = {"orchestrator": "airflow", **answers}

    def variant(self, **answers: str) -> Workspace:
        """Return the workspace of a project with other answers, from the same template."""
        wanted = {**self.answers, **answers}
        if wanted == self.answers:
            return self
        other = Workspace(self.folder / "-".join(answers.values()), **wanted)
        other.folder.mkdir()
        other.template = self.template
        return other

    @functools.cached_property
    def environment(self) -> dict[str, str]:
        """Return this process's environment without settings that would change a result."""
        kept = {name: text for name, text in os.environ.items() if not name.startswith(FOREIGN)}
        return {**kept, "UV_NO_PROGRESS": "1", "COLUMNS": "120"}

    def command(self, *arguments: str | Path, **variables: str | Path) -> Command:
        """Return a command that runs in the project's folder, or in ours while there is none."""
        folder = self.folder / "project"
        extra = {name: str(value) for name, value in variables.items()}
        return Command(
            arguments, folder if folder.is_dir() else self.folder, {**self.environment, **extra}
        )

    @functools.cached_property
    def template(self) -> Path:
        """Return the working tree, uncommitted work too, as a git repository with one release."""
        repository = self.folder / "template"
        listing = ["git", "ls-files", "-z", "-co", "--exclude-standard"]
        names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for name in names.split("\0"):
            if (source := ROOT / name).is_file():
                (repository / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, repository / name)
        identity = ["-c", "user.name=Benchmark", "-c", "user.email=benchmark@example.org"]
        for arguments in (
            ["init", "--quiet"],
            ["add", "--all", "--force"],
            [*identity, "commit", "--quiet", "--message=Release"],
            ["tag", "v0.1.0"],
        ):
            subprocess.run(["git", *arguments], cwd=repository, check=True, capture_output=True)
        return repository

    def render(self, folder: Path) -> Command:
        """Return the command that makes a project in a folder."""
        copier = Path(sys.executable).with_name("copier")
        data = (f"--data={name}={answer}" for name, answer in self.answers.items())
        options = ("--defaults", "--quiet", *data)
        return self.command(copier, "copy", *options, self.template, folder)

    @functools.cached_property
    def project(self) -> Path:
        """Return a rendered project, not installed."""
        folder = self.folder / "project"
        self.render(folder).measure()
        lift_certifi(folder / "pyproject.toml")
        return folder

    @functools.cached_property
    def python(self) -> Path:
        """Return the interpreter of the project's own environment, installed if need be."""
        python = self.project / ".venv" / "bin" / "python"
        if not python.exists():
            self.command("uv", "sync", "--quiet").measure()
        return python
