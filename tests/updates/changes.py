"""What a newer version of the template may change, recorded as small changes to this one.

Each is a function of the template's folder. One that does not find what it changes any more fails:
record it anew. Together they are the newer version of test_updates.py.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

PACKAGE = Path("template/src/{{package_name}}")
METRICS = PACKAGE / "ml" / "metrics"
PROBLEMS = ("classification", "regression")
ALIAS = '''

@deprecated("metrics.predict is now metrics.outcome")
def predict(model: Any, rows: Any) -> pl.DataFrame:
    """Return what `outcome` returns."""
    return outcome(model, rows)
'''


def change_a_stage(template: Path) -> None:
    file = template / PACKAGE / "stages" / "score.py"
    substitute(file, r'log\.info\("scored', 'log.info("has scored')


def add_a_question(template: Path) -> None:
    """With the file that its answer brings."""
    file = template / "copier.yml"
    question = "contact:\n  type: str\n  help: Whom to ask?\n  default: the night shift\n\n"
    substitute(file, r"^(# Who owns what)", rf"{question}\1")
    # Old projects have no answer while they are updated.
    row = '    {%- if contact | default("") == "nobody" %}\n    /CONTACT.md\n    {%- endif %}\n'
    substitute(file, r"^(    # monitoring\n)", rf"{row}\1")
    (template / "template" / "CONTACT.md.jinja").write_text("Ask {{ contact }}.\n")


def remove_files(template: Path) -> None:
    for name in ("example/test_bad_data.py.jinja", "stages/test_light_imports.py.jinja"):
        (template / "template" / "tests" / name).unlink()


def bump_a_dependency(template: Path) -> None:
    substitute(
        template / "template" / "pyproject.toml.jinja", r'"packaging>=.*"', '"packaging>=25"'
    )


def change_a_default(template: Path) -> None:
    substitute(template / "copier.yml", r"(?s)(^serving:.*?\n  default:) batch", r"\1 rest")


def change_the_services(template: Path) -> None:
    for file in sorted((template / "template" / "deploy" / "compose").glob("*.yaml*")):
        if "start_period" in file.read_text():
            substitute(file, r"start_period: \d+s", "start_period: 299s")


def hand_a_file_to_the_team(template: Path) -> None:
    """The licence is the team's from now on; new projects get another one."""
    substitute(template / "copier.yml", r"^    /config$", "    /LICENSE\n    /config")
    append(template / "template" / "LICENSE.jinja", "\nOnly for new projects.\n")


def change_what_is_the_teams(template: Path) -> None:
    """New projects get other examples."""
    append(template / PACKAGE / "domain" / "features.py", "\n# Only for new projects.\n")
    substitute(
        template / "template" / "config" / "pipeline.toml.jinja", "^trials = 5 ", "trials = 9 "
    )
    data = template / "template" / "data" / "sample"
    for day in ("01", "30"):
        shutil.copy(data / "2013-01-02.parquet", data / f"2013-01-{day}.parquet")


def change_what_the_team_deletes(template: Path) -> None:
    append(template / "template" / "deploy" / "kubernetes" / "README.md.jinja", "\nNew advice.\n")


def rename_what_the_domain_uses(template: Path) -> None:
    """The old name stays, and warns: as CONTRIBUTING.md asks for."""
    for file in (template / METRICS / f"{problem}.py" for problem in PROBLEMS):
        substitute(file, r"^def predict\(", "def outcome(")
        imports = "from numpy.typing import NDArray\n"
        substitute(file, imports, f"{imports}from typing_extensions import deprecated\n")
        append(file, ALIAS)
    for file in (template / PACKAGE).rglob("*.py"):
        text = file.read_text()
        file.write_text(text.replace("metrics.predict(", "metrics.outcome("))


CHANGES: list[Callable[[Path], None]] = [
    change_a_stage,
    add_a_question,
    remove_files,
    bump_a_dependency,
    change_a_default,
    change_the_services,
    hand_a_file_to_the_team,
    change_what_is_the_teams,
    change_what_the_team_deletes,
    rename_what_the_domain_uses,
]


# Further versions, which go on from here each on its own.


def change_what_the_team_changed(template: Path) -> None:
    """A line of two files, and of a third that the team has left alone."""
    substitute(template / "template" / "README.md.jinja", r"^## Commands$", "## What it can do")
    stages = template / PACKAGE / "stages"
    substitute(stages / "score.py", r"^log = .*", 'log = get_logger("score")')
    append(stages / "train.py", "\n# Newer.\n")


def drop_an_answer(template: Path) -> None:
    """Python 3.11 is no longer offered."""
    file = template / "copier.yml"
    substitute(file, r'^  choices: \["3\.11", ', "  choices: [")
    substitute(file, r'^  default: "3\.11"', '  default: "3.12"')


def want_a_newer_copier(template: Path) -> None:
    version = '_min_copier_version: "99.0.0"'
    substitute(template / "copier.yml", r"^_min_copier_version: .*", version)


FURTHER: dict[str, Callable[[Path], None]] = {
    "conflict": change_what_the_team_changed,
    "dropped-answer": drop_an_answer,
    "newer-copier": want_a_newer_copier,
}


def append(file: Path, text: str) -> None:
    with file.open("a") as stream:
        stream.write(text)


def substitute(file: Path, pattern: str, new: str) -> None:
    """Replace the first match of a pattern in a file."""
    changed, count = re.subn(pattern, new, file.read_text(), count=1, flags=re.MULTILINE)
    assert count, f"{file.name} holds nothing like {pattern!r} any more: record this anew"
    file.write_text(changed)
