"""After Cookiecutter asked: let Copier render into the project's folder, the working folder here.

Cookiecutter renders this file, so the only double braces are those that bring the answers.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

CONTEXT, CALLED_FROM = json.loads(r"""[{{ cookiecutter | tojson }}, {{ called_from | tojson }}]""")
COPY = Path(CONTEXT["_repo_dir"])
PROJECT = Path.cwd()
# What Copier takes for a git repository though it does not end in .git.
GIT_SERVERS = ("git://", "https://github.com/", "https://gitlab.com/")


def main() -> None:
    # Cookiecutter does not delete this file.
    Path(__file__).unlink()
    address = find_address(CONTEXT["_template"])
    if any(path.name != ".git" for path in PROJECT.iterdir()):
        stop(
            f"{PROJECT} is not empty. To take the template into an existing project: "
            + shlex.join(["copier", "copy", address, str(PROJECT)])
        )
    copier = json.loads((COPY / "hooks" / "copier.json").read_text())
    answers = COPY / "answers.yml"
    answers.write_text(to_yaml(read_answers()))
    command: list[str | Path] = [*copier, "copy", "--defaults", "--data-file", answers]
    if CONTEXT["_checkout"]:
        command.append(f"--vcs-ref={CONTEXT['_checkout']}")
    done = subprocess.run(
        [*command, address, PROJECT],
        cwd=COPY,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        # A refused answer is the last line of a traceback.
        refusal = re.search(r"^ValueError: (.+)", done.stderr, re.MULTILINE | re.DOTALL)
        stop((refusal[1] if refusal else done.stderr).strip())
    sys.stderr.write(done.stderr)


def find_address(template: str) -> str:
    """Return the template's address in the form in which Copier finds it again."""
    if (local := Path(CALLED_FROM, template)).is_dir():
        return os.path.abspath(local)
    config = ["git", "config", f"--file={COPY / '.git' / 'config'}", "remote.origin.url"]
    done = subprocess.run(config, capture_output=True, encoding="utf-8", check=False)
    address = done.stdout.strip()
    if not address:
        stop(f"{template} is neither a folder nor a git repository, so Copier cannot use it.")
    is_plain = address.endswith(".git") or address.startswith(GIT_SERVERS) or "://" not in address
    return address if is_plain else f"git+{address}"


def read_answers() -> dict[str, object]:
    """Return the answers as Copier's questions take them."""
    answers = {name: value for name, value in CONTEXT.items() if not name.startswith("_")}
    for question, choices in CONTEXT["_multiselect"].items():
        answers[question] = [name for name in choices if answers.pop(f"{question}_{name}")]
    return answers


def to_yaml(answers: dict[str, object]) -> str:
    """Return JSON in ASCII whose escapes mean the same in YAML, whatever the characters."""
    text = json.dumps(answers, ensure_ascii=False)
    return re.sub(r"[^ -~]", lambda character: f"\\U{ord(character[0]):08x}", text)


def stop(sentence: str) -> NoReturn:
    """Say why and delete Cookiecutter's copy, which it leaves behind; it deletes the project."""
    if re.fullmatch(r"cookiecutter[a-z0-9_]{8}", COPY.parent.name):
        shutil.rmtree(COPY.parent)
    sys.exit(sentence)


main()
