"""How Sphinx makes a site of these pages: `uv run poe docs`."""

from __future__ import annotations

import os
import posixpath
import re

from sphinx.application import Sphinx

project = "ml-pipeline-template"
extensions = ["myst_parser", "sphinxcontrib.mermaid"]
myst_fence_as_directive = ["mermaid"]
html_theme = "furo"
root_doc = "README"
# Links to headings, as GitHub names them.
myst_heading_anchors = 3

# The order of the pages beside each page; not in the pages, since GitHub would show it.
PAGES = {
    "README": "start your-data operate extend update adopt tested dependencies architecture "
    "decisions/README",
    "decisions/README": "0*",
}
# A link that leaves docs/.
OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)\s]+)\)")


def setup(app: Sphinx) -> None:
    """Let links that leave docs/ lead to the repository, and list the pages."""
    app.connect("source-read", follow_links_outside)
    app.connect("source-read", list_pages)


def list_pages(app: Sphinx, name: str, source: list[str]) -> None:
    """Append the list of pages to those that have one."""
    if name in PAGES:
        entries = "\n".join(PAGES[name].split())
        source[0] += f"\n```{{toctree}}\n:hidden:\n:glob:\n\n{entries}\n```\n"


def follow_links_outside(app: Sphinx, name: str, source: list[str]) -> None:
    """Give them the address in $DOCS_REPOSITORY, or leave their text where it is not set.

    In a checkout they are relative, for readers on GitHub; tests/ci/test_docs.py follows them.
    """
    repository = os.environ.get("DOCS_REPOSITORY", "").rstrip("/")

    def replace(link: re.Match[str]) -> str:
        text, target = link.groups()
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(name), target))
        if path.startswith("docs/"):
            return link[0]
        return f"[{text}]({repository}/blob/main/{path})" if repository else text

    source[0] = OUTSIDE.sub(replace, source[0])
