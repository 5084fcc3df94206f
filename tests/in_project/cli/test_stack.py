"""The stack's command: secrets are made once and kept; what is missing is said in a sentence."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from dotenv import dotenv_values
from flight_delays.cli import stack
from sandbox import CHECKOUT


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder with the project's compose files, and without .env."""
    shutil.copytree(CHECKOUT / "deploy", tmp_path / "deploy")
    for name in ("compose.yaml", ".env.example"):
        shutil.copy(CHECKOUT / name, tmp_path)
    with (tmp_path / "compose.yaml").open("a") as file:
        for name in ("SOME_SECRET", "A_FERNET_KEY"):
            file.write("# ${" + name + ":?set by uv run poe stack up}\n")
    return tmp_path


def test_every_secret_gets_a_random_value_that_only_its_owner_may_read(root: Path) -> None:
    stack.create_secrets(root)

    written = dotenv_values(root / ".env")
    texts = [file.read_text() for file in (root / "deploy" / "compose").glob("*")]
    asked = set(stack.GENERATED.findall("".join([*texts, (root / "compose.yaml").read_text()])))
    assert {"SOME_SECRET", "A_FERNET_KEY"} <= asked
    values = [written[name] or "" for name in asked]
    assert len(set(values)) == len(asked)
    assert all(len(value) >= 44 for value in values)
    Fernet(written["A_FERNET_KEY"] or "")
    assert stat.S_IMODE((root / ".env").stat().st_mode) == 0o600
    # Only lines that waited for a value have changed.
    example = (root / ".env.example").read_text().splitlines()
    lines = (root / ".env").read_text().splitlines()
    assert [line for line in example if not line.endswith("=") and line not in lines] == []


def test_values_that_are_there_are_never_changed(root: Path) -> None:
    mine = "SOME_SECRET=chosen by me\nOTHER=1\n"
    (root / ".env").write_text(mine)
    (root / ".env").chmod(0o644)

    stack.create_secrets(root)
    text = (root / ".env").read_text()
    stack.create_secrets(root)

    assert text.startswith(mine)
    assert (root / ".env").read_text() == text
    assert stat.S_IMODE((root / ".env").stat().st_mode) == 0o600


def test_an_older_env_gets_what_the_example_has_since_got(root: Path) -> None:
    (root / ".env").write_text("SOME_SECRET=chosen by me\n")
    (root / ".env.example").write_text("NEW=value\nEMPTY=\nSOME_SECRET=\n")

    stack.create_secrets(root)

    written = dotenv_values(root / ".env")
    assert written["SOME_SECRET"] == "chosen by me"
    assert (written["NEW"], written["EMPTY"]) == ("value", "")


def test_a_line_that_waits_for_its_value_gets_it(root: Path) -> None:
    """A second line would win over what somebody writes into the first one later."""
    (root / ".env").write_text("# Mine\nSOME_SECRET=\nA_FERNET_KEY=''\n")

    stack.create_secrets(root)

    text = (root / ".env").read_text()
    assert len(re.findall(r"^SOME_SECRET=\w{64}$", text, re.MULTILINE)) == 1
    assert text.startswith("# Mine\nSOME_SECRET=")
    assert text.count("A_FERNET_KEY=") == 1
    assert dotenv_values(root / ".env")["A_FERNET_KEY"]


def test_git_never_sees_the_secrets(root: Path) -> None:
    shutil.copy(CHECKOUT / ".gitignore", root)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    stack.create_secrets(root)

    status = subprocess.run(
        ["git", "status", "--short", "--untracked-files=all"],
        cwd=root, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert not re.search(r"\.env$", status.stdout, re.MULTILINE)


@pytest.mark.parametrize("command", ["up", "status", "backup"])
def test_without_docker_it_says_what_is_missing(command: str, tmp_path: Path) -> None:
    program = "from flight_delays.cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "stack", command],
        check=False,
        env={"PATH": str(tmp_path), "PIPELINE_HOME": str(CHECKOUT)},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert "StackError: docker is not installed: the stack needs Docker 25 or newer" in said
    assert "Traceback" not in said
