"""The macros of includes/quote.jinja: text written into a file is read back as the same text."""

import ast
import json
import re
import tomllib
from collections.abc import Callable

import pytest
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..support.markdown import visible
from ..support.template import ROOT
from ..support.texts import make_texts

Macro = Callable[[str], str]


@pytest.fixture(scope="module")
def macros() -> dict[str, Macro]:
    environment = Environment(
        loader=FileSystemLoader(ROOT),
        extensions=["jinja2_ansible_filters.AnsibleCoreFiltersExtension"],
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
    )
    module = environment.get_template("includes/quote.jinja").module
    return {name: getattr(module, name) for name in ("string", "markdown")}


@pytest.mark.parametrize(
    ("format_", "load"),
    [
        ("toml", lambda literal: tomllib.loads(f"x = {literal}")["x"]),
        ("yaml", lambda literal: yaml.safe_load(f"x: {literal} # comment")["x"]),
        ("json", json.loads),
        ("python", ast.literal_eval),
    ],
)
def test_string_is_read_back(
    macros: dict[str, Macro], format_: str, load: Callable[[str], str]
) -> None:
    for text in make_texts(500):
        assert load(macros["string"](text)) == text, (format_, text)


@pytest.mark.parametrize(
    ("layout", "elements"),
    [
        ("# {}\n", ["heading_open", "heading_close"]),
        ("| {} | z |\n|---|---|\n", None),
        ("- {}\n", None),
    ],
)
def test_markdown_line_is_read_back(
    macros: dict[str, Macro], layout: str, elements: list[str] | None
) -> None:
    plain = visible(layout.format("plain"))
    assert elements in (None, plain[1])
    for text in make_texts(2000):
        line = re.sub(r"[\s\x85\ufeff]+", " ", text).strip()
        if line:
            document = layout.format(macros["markdown"](line))
            assert visible(document) == (plain[0].replace("plain", line), plain[1]), document


def test_markdown_paragraphs_are_read_back(macros: dict[str, Macro]) -> None:
    for text in make_texts(3000):
        lines = re.sub(r"\n{2,}", "\n\n", re.sub(r"[\x85\xa0\u2028\ufeff]", "", text)).strip()
        if lines:
            document = f"Before.\n\n{macros['markdown'](lines)}\n\nAfter.\n"
            assert visible(document) == (f"Before.\n\n{lines}\n\nAfter.", []), document


@pytest.mark.parametrize(
    "sentence",
    [
        "A machine-learning pipeline: trains, checks and promotes a model, and scores new data.",
        "It's 5 - 10 % faster (see below); C# and snake_case are fine, R&D too!",
        'Ask "why?" at ada@example.org, or #5 + 3 = 8 > 7.',
        "Zoë's 日本 🚀",
    ],
)
def test_markdown_leaves_ordinary_sentences_alone(macros: dict[str, Macro], sentence: str) -> None:
    assert macros["markdown"](sentence) == sentence
