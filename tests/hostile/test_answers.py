"""Hostile answers: refused in one sentence, or read back as the same text; nothing else happens.

HOSTILE_EXAMPLES=50 tries fifty times as many, and others each time.
"""

import ast
import contextlib
import os
import re
import subprocess
import tomllib
import zipfile
from email import message_from_bytes, policy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from copier import run_copy, run_update
from copier._cli import CopierApp
from copier.errors import ForbiddenPathError
from dotenv import dotenv_values
from hypothesis import Phase, assume, given
from hypothesis import strategies as st
from jinja2 import FileSystemLoader, StrictUndefined, Template
from jinja2.sandbox import SandboxedEnvironment

from ..in_project.hostile_examples import examples
from ..support.markdown import visible
from ..support.questions import NAMES, QUESTIONS, read_answers, read_project
from ..support.readers import READERS
from ..support.template import ROOT, Render, git, make_project

# What does something in at least one of the places an answer is written to, or is shown in.
ATTACKS = [
    *(
        "$(touch PWNED)",
        "`touch PWNED`",
        "; touch PWNED #",
        "' || touch PWNED '",
        "\\$(touch PWNED)",
    ),
    "{{ cycler.__init__.__globals__.os.system('touch PWNED') }}",
    "{% for x in ().__class__.__base__.__subclasses__() %}{{ x }}{% endfor %}",
    "{% include '/etc/passwd' %} {# no comment #} {% raw %}",
    '!!python/object/apply:os.system ["touch PWNED"]',
    '""" + __import__(\'os\').system(\'touch PWNED\') + """',
    "'''; import os; os.system('touch PWNED')  # noqa",
    *("../../PWNED", "/PWNED", "~/PWNED", "..\\PWNED", "C:\\new\\table", "file:///etc/passwd"),
    *(
        "${HOME}",
        "%(x)s",
        "${{ secrets.TOKEN }}",
        "{one}",
        "&amp; &#65;",
        "\\N{BULLET} \\u0041 \\x41",
    ),
    "<script>alert(1)</script> <img src=x onerror=alert(1)> <!-- ",
    "[f](javascript:alert(1)) ![g](http://h) <http://i> [j]: k",
    "*a* _b_ **c** __d__ ~~e~~ a|b #",
    "# a: b - [c], {d: e} & *f !g | h > i @j ? k",
    '"]\n[project.scripts]\nrun = "os:system',
    "It's \"double\", 'single', \"\"\"three\"\"\" and '''three''' `ticks`",
    *("null", "true", "~", "2013-01-01", "1e3", "0x10", "---", "...", "- a", "1. a", "## a ##"),
    *("> a", "=", "===", "```", "|-|", "class", "None", "con", "__init__", "日本 a", "Zoë 🚀 👩‍💻"),
    # Text that runs the other way, or is not seen: see trojansource.codes.
    *("a\u202eb", "a\u2066b\u2069", "a\u200fb", "a\u200bb", "a\ufeffb", "a\U000e0041b"),
    *("a\x00b", "a\x1b[31mb", "a\rb", "a\x85b", "a\u2028b", "a\ud800b", "a\ufffeb", "a\x7fb"),
    *("x" * 10_000, "x" * 200, "words and " * 10 + "end", " a", "a ", "", " ", "\n", "a\n\nb\n- c"),
]
TEXTS = st.one_of(
    st.sampled_from(ATTACKS),
    st.lists(st.sampled_from(ATTACKS) | st.characters(), min_size=1, max_size=6).map("".join),
    # Also what no encoding can hold.
    st.text(st.characters(), max_size=40),
)
FREE = ("project_name", "description", "author_name")
CHECKS = {
    "project_name": "check_project_name(text)",
    "project_slug": "check_slug(text)",
    "package_name": "check_package(text)",
    "description": "check_lines(text, 500)",
    "author_name": "check_text(text, 250)",
    "author_email": "check_email(text)",
}
# A smaller example is not worth many more projects.
GENERATE = [Phase.generate]
# Each stands for one free answer, and occurs nowhere else.
SENTINELS = {
    "project_name": "Sentinelproject",
    "description": "Sentineldescription",
    "author_name": "Sentinelauthor",
}


@cache
def jinja() -> SandboxedEnvironment:
    """Return templates as Copier renders them."""
    return SandboxedEnvironment(
        loader=FileSystemLoader(ROOT),
        extensions=["jinja2_ansible_filters.AnsibleCoreFiltersExtension"],
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )


def call(file: str, expression: str, text: str) -> str:
    """Return what a macro of includes/ makes of a text."""
    return template_of(file, expression).render(text=text)


@cache
def template_of(file: str, expression: str) -> Template:
    macro = expression.partition("(")[0]
    source = f'{{% from "includes/{file}.jinja" import {macro} %}}{{{{ {expression} }}}}'
    return jinja().from_string(source)


def refusal(question: str, text: str) -> str:
    """Return the sentence that refuses an answer; empty when it is accepted."""
    return call("questions", CHECKS[question], text).strip()


def is_sentence(text: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z][^\x00-\x1f\ud800-\udfff]{10,200}[^ ]", text))


def one_line(question: str, least: int = 1) -> st.SearchStrategy[str]:
    """Return hostile texts that a question accepts."""
    return TEXTS.filter(lambda text: len(text) >= least and not refusal(question, text))


# --- one answer ----------------------------------------------------------------------------------


def test_every_free_answer_is_attacked() -> None:
    assert {name for name, question in QUESTIONS.items() if "choices" not in question} == set(
        CHECKS
    )
    for name, check in CHECKS.items():
        assert check.replace("(text", f"({name}") in QUESTIONS[name]["validator"]


@pytest.mark.parametrize("question", CHECKS)
def test_an_answer_is_refused_in_a_sentence_or_accepted(question: str) -> None:
    said = {text: refusal(question, text) for text in ATTACKS}
    assert [text for text in said.values() if text and not is_sentence(text)] == []
    assert question not in FREE or "" in said.values()


@examples(300, phases=GENERATE)
@given(text=TEXTS)
def test_an_accepted_answer_is_read_back_from_every_format(text: str) -> None:
    for question in FREE:
        if said := refusal(question, text):
            assert is_sentence(said), said
            continue
        literal = call("quote", "string(text)", text)
        # Also as UTF-8, which a file is.
        literal = literal.encode().decode()
        assert tomllib.loads(f"x = {literal}")["x"] == text
        assert yaml.safe_load(f"x: {literal} # comment")["x"] == text
        assert ast.literal_eval(literal) == text
        assert yaml.safe_load(jinja().filters["to_nice_yaml"]({"x": text}))["x"] == text
        layout = "{}\n" if question == "description" else "# {}\n"
        assert_same_markdown(layout, text)


def assert_same_markdown(layout: str, text: str) -> None:
    """Assert that a Markdown document shows the text, and nothing of the text's making."""
    plain = visible(layout.format("plain"))
    shown = visible(layout.format(call("quote", "markdown(text)", text)))
    lines = re.sub(r"\n{2,}", "\n\n", text)
    assert shown == (plain[0].replace("plain", lines), plain[1])


@examples(300, phases=GENERATE)
@given(text=TEXTS)
def test_names_derived_from_an_accepted_name_are_accepted(text: str) -> None:
    assume(not refusal("project_name", text))
    slug = call("questions", "slug_of(text)", text)
    assert not refusal("project_slug", slug), slug
    package = call("questions", "package_of(text)", slug)
    assert not refusal("package_name", package), package


@pytest.mark.parametrize("question", CHECKS)
def test_invisible_characters_are_refused(question: str) -> None:
    """What is read must be what is there: no text that runs backwards, no hidden words."""
    for character in "\u202a\u202e\u2066\u2069\u200b\u2060\u2062\ufeff\ufff9\U000e0041":
        assert "visible characters" in refusal(question, f"a{character}b") or question not in FREE
        assert refusal(question, f"a{character}b")
    for needed in ("a\u200db", "a\u200cb", "a\u200fb"):
        assert question not in FREE or not refusal(question, needed)


# --- through Copier ------------------------------------------------------------------------------


@pytest.mark.parametrize("question", CHECKS)
@examples(4, phases=GENERATE)
@given(data=st.data())
def test_a_refused_answer_names_its_question_and_leaves_nothing(
    sources: Path, tmp_path_factory: pytest.TempPathFactory, question: str, data: st.DataObject
) -> None:
    text = data.draw(TEXTS.filter(lambda text: bool(refusal(question, text))))
    parent = tmp_path_factory.mktemp("refused")
    with pytest.raises(ValueError, match=question) as error:
        run_copy(str(sources), parent / "to", data={question: text}, defaults=True, quiet=True)
    assert refusal(question, text) in str(error.value)
    assert not list(parent.rglob("*"))


@pytest.mark.parametrize("text", ["null", "[a, [b]]", "{a: {b: c}}", '"\\ud800"', '"a\\0b"'])
@pytest.mark.parametrize("question", ["project_name", "package_name"])
def test_what_is_no_text_in_a_data_file_is_refused(
    sources: Path, tmp_path: Path, question: str, text: str
) -> None:
    answers = tmp_path / "answers.yml"
    answers.write_text(f"{question}: {text}\n")
    target = tmp_path / "to"
    # The first is Copier's own sentence.
    with pytest.raises((ValueError, TypeError), match=f"Could not convert|{question}"):
        copy(sources, target, answers)
    assert not target.exists()


def test_a_data_file_runs_nothing(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answers = tmp_path / "answers.yml"
    answers.write_text('project_name: !!python/object/apply:os.system ["touch PWNED"]\n')
    with pytest.raises(yaml.YAMLError, match="could not determine a constructor"):
        copy(sources, tmp_path / "to", answers)
    assert list(tmp_path.iterdir()) == [answers]


def copy(template: Path, target: Path, answers: Path) -> None:
    """Run `copier copy` with a file of answers, as a person would."""
    options = ["--defaults", "--quiet", "--data-file", f"{answers}"]
    CopierApp.run(["copier", "copy", *options, f"{template}", f"{target}"], exit=False)


# --- whole projects ------------------------------------------------------------------------------


@examples(5, phases=GENERATE)
@given(
    project_name=one_line("project_name", least=5),
    description=one_line("description", least=5),
    author_name=one_line("author_name", least=5),
)
def test_a_project_says_what_was_answered_and_nothing_else(
    render: Render, project_name: str, description: str, author_name: str
) -> None:
    answers = {
        "project_name": project_name, "description": description, "author_name": author_name,
    }  # fmt: skip
    assert_read_back(render, answers)


PARAGRAPHS = """\
First: "line" 'one'

  indented {{ x }}
- item
1. one
===
---
```
# code \\
| a | b |
|---|---|
trailing \n\
end"""


def test_a_package_is_built_that_says_what_was_answered(sources: Path, tmp_path: Path) -> None:
    answers = {
        **NAMES,
        "project_name": "a <b> {{ x }} 🚀",
        "description": "one: 'x' \"y\"\n\n# two \\ 🚀",
        "author_name": 'Lovelace, Ada; "x" <y@z.org> \\ Zoë (c)',
        "author_email": "a'`{x}|&*=?^~!#%+/-_$@x.org",
    }
    make_project(sources, tmp_path / "project", answers)
    assert read_answers(tmp_path / "project").items() >= answers.items()

    build = ["uv", "build", "--quiet", "--offline", "--wheel", "--out-dir", ".", "project"]
    subprocess.run(build, check=True, cwd=tmp_path)

    (file,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(file) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith("METADATA"))
        metadata = message_from_bytes(wheel.read(name), policy=policy.SMTPUTF8)
    assert metadata["Summary"] == answers["description"].replace("\n", " ")
    assert f"{answers['author_name']} <{answers['author_email']}>" in f"{metadata['Author-email']}"


def test_paragraphs_are_read_back(render: Render) -> None:
    assert_read_back(render, {**SENTINELS, "description": PARAGRAPHS})


@pytest.mark.parametrize("text", [t for t in ATTACKS if "PWNED" in t or "etc/passwd" in t])
def test_nothing_is_run_or_written_outside_of_the_destination(
    render: Render, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    home = Path(os.environ["HOME"])
    at_home = sorted(home.rglob("*"))
    project = tmp_path / "a" / "project"
    answers = {**NAMES, **dict.fromkeys(FREE, text), "project_name": f"a {text}"}
    make_project(sources, project, answers)

    assert read_project(project).keys() == read_project(render(**NAMES)).keys()
    assert {path.name for path in tmp_path.iterdir()} == {"a", "cwd"}
    # What people and tools do with these files.
    subprocess.run(["bash", "-euc", "set -a; . ../a/project/.env.example"], check=True)
    assert "SLACK_WEBHOOK_URL" in dotenv_values(project / ".env.example")
    assert not list((tmp_path / "cwd").iterdir())
    assert not [path for path in tmp_path.rglob("*") if path.name == "PWNED"]
    assert sorted(home.rglob("*")) == at_home


@pytest.mark.parametrize("inside", ["src", "README.md", "config", ".github"])
def test_a_link_in_the_destination_leads_nowhere(
    sources: Path, tmp_path: Path, inside: str
) -> None:
    outside, target = tmp_path / "outside", tmp_path / "target"
    target.mkdir()
    if inside.endswith(".md"):
        outside.write_text("mine")
    else:
        outside.mkdir()
    (target / inside).symlink_to(outside)
    with contextlib.suppress(ForbiddenPathError):
        run_copy(str(sources), target, defaults=True, quiet=True, overwrite=True)
    assert outside.read_text() == "mine" if outside.is_file() else not list(outside.iterdir())


def test_an_update_takes_stored_answers_as_text(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    project = tmp_path / "project"
    # Of author_name the default is made from the name: once, and never rendered again.
    answers = {"project_name": "{{ 7 * 7 }} {% raw %} $(touch PWNED)", "description": "'{{ x }}"}
    run_copy(str(template), project, data=answers, defaults=True, quiet=True)
    commit(project)

    run_update(project, defaults=True, quiet=True, overwrite=True)

    assert git(project, "status", "--porcelain") == ""
    assert read_answers(project).items() >= answers.items()
    assert read_answers(project)["author_name"] == f"{answers['project_name']} authors"
    assert list(tmp_path.iterdir()) == [project]


@pytest.mark.parametrize("name", ["../../outside", "/outside"])
def test_an_update_refuses_stored_answers_that_lead_outside(
    template: Path, tmp_path: Path, name: str
) -> None:
    project = tmp_path / "in" / "project"
    run_copy(str(template), project, defaults=True, quiet=True)
    file = project / ".copier-answers.yml"
    stored = yaml.safe_load(file.read_text()) | {"package_name": name}
    file.write_text(yaml.safe_dump(stored))
    commit(project)

    with pytest.raises(ValueError, match="package_name"):
        run_update(project, defaults=True, quiet=True, overwrite=True)

    assert git(project, "status", "--porcelain") == ""
    assert [path.name for path in tmp_path.rglob("*") if "outside" in path.name] == []


def commit(project: Path) -> None:
    git(project, "init", "--quiet")
    git(project, "add", "--all", "--force")
    git(project, "commit", "--quiet", "--message=Mine")


def assert_read_back(render: Render, answers: dict[str, str]) -> None:
    """Assert that every file says the same with free answers as with the sentinels, but for them.

    Text in a file that no reader understands is refused, except for the name in the licence.
    """
    before, after = (render(**NAMES, **free) for free in (SENTINELS, answers))
    assert read_answers(after).items() >= answers.items()
    assert read_project(before).keys() == read_project(after).keys()
    for path, content in read_project(before).items():
        read = READERS.get(Path(path).suffix, str)
        said = (after / path).read_bytes().decode()
        assert read(said) == replace(read(content.decode()), expected_in(path, answers)), path
        if read is str and path != "LICENSE":
            unquoted = [text for text in SENTINELS.values() if text.encode() in content]
            assert not unquoted, f"{path} holds free text, but no test knows how to read it"


def expected_in(path: str, answers: dict[str, str]) -> dict[str, str]:
    """Return the answers as a file must hold them: some formats cannot keep every line break."""
    description = answers["description"]
    if path == "pyproject.toml":
        # Package metadata allows one line only.
        description = description.replace("\n", " ")
    if path.endswith(".md"):
        description = re.sub(r"\n{2,}", "\n\n", description)
    return {**answers, "description": description}


def replace(value: Any, answers: dict[str, str]) -> Any:
    """Return a value with the sentinels in its strings replaced by the answers."""
    if isinstance(value, dict):
        return {replace(key, answers): replace(item, answers) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(replace(item, answers) for item in value)
    if isinstance(value, str):
        by_sentinel = {SENTINELS[name]: text for name, text in answers.items()}
        return re.sub("|".join(by_sentinel), lambda match: by_sentinel[match[0]], value)
    return value
