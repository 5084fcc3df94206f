"""The words: what the style note in CONTRIBUTING.md replaces is gone from all our texts."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from ..support.template import ROOT, git

# CONTRIBUTING.md is not among them: it lists the phrases. Licences are quoted.
SEARCHED = (
    *("README.md", "CHANGELOG.md", "SECURITY.md", "AGENTS.md", "docs", "copier.yml"),
    *("includes", ":!includes/licenses", ".github"),
    *("template", ":!template/data", ":!template/tests"),
)
# Between two words: the end of a line as well, and the mark of a comment that goes on.
SPACE = r"\s+(?:#\s+)?"
THINGS = "address|column|directory|file|folder|link|name|number|path|sample|table|text|time|word"
# Each pattern with a text in which it is found.
PHRASES = {
    rf"(?<!there\s)\b(?:is|are|was|were) no (?:{THINGS})s?\b": "the source is no file",
    r"\bwhoever\b": "Whoever copies it",
    r"\bsuch (?:a )?one\b": "such a one is refused",
    r"\bof (?:its|their|his|our|your) own\b": "a process of its own",
    r", too(?![-\w])(?![ \t]+\w)": "links are refused, too.",
    r"\btells? (?:of|nobody)\b": "the report tells of it",
    r"\basks? nobody\b": "it asks nobody",
    r"\b(?:is|are|was|were) told\b": "the team is told of it",
    r"\b(?:hold|holds|held|holding)(?: \S+){0,3} against\b": "holds every page against it",
    r"\b(?:one|a) (?:stage|object|process) an? (?:line|row|stage|step)\b": "a stage a line",
    r"\bone (?:line|number|row|task) an? (?:line|row|stage|step)\b": "one line a stage",
    r"\b(?:lie|lies) (?:at|beside|in)\b": "it lies beside the others",
    r"\bthe page for Prometheus\b": "the page for Prometheus",
}


def found(pattern: str, text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the words of each match in a text, those over two lines as well."""
    for match in re.finditer(pattern.replace(" ", SPACE), text, re.IGNORECASE):
        yield text.count("\n", 0, match.start()) + 1, " ".join(match[0].split())


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Return the tracked files that are text, by name."""
    files = {}
    for name in git(ROOT, "ls-files", "-z", "--", *SEARCHED).split("\0"):
        path = ROOT / name
        if path.is_file() and b"\0" not in (content := path.read_bytes()):
            files[name] = content.decode()
    return files


@pytest.mark.parametrize("pattern", PHRASES, ids=PHRASES.values())
def test_this_phrase_is_gone(pattern: str, texts: dict[str, str]) -> None:
    left = [
        f"{name}:{line}: {words}"
        for name, text in texts.items()
        for line, words in found(pattern, text)
    ]
    assert left == []


@pytest.mark.parametrize(("pattern", "example"), PHRASES.items(), ids=PHRASES.values())
def test_the_phrase_would_be_found(pattern: str, example: str) -> None:
    """As it stands, in capitals, and broken over the lines of a comment."""
    [(line, words)] = found(pattern, f"First.\n{example}\n")
    assert line == 2
    assert words in example
    for text in (example.upper(), example.replace(" ", "\n    # ")):
        assert len(list(found(pattern, f"# {text}\n"))) == 1


@pytest.mark.parametrize(
    "text", ["There is no file.", "Too much, too few, too-long.", "Its own one.", "It holds one."]
)
def test_plain_words_are_left_alone(text: str) -> None:
    assert not [pattern for pattern in PHRASES if list(found(pattern, text))]


def test_the_texts_are_read(texts: dict[str, str]) -> None:
    assert {"README.md", "docs/your-data.md", "template/AGENTS.md.jinja"} <= set(texts)
    assert "CONTRIBUTING.md" not in texts
