"""What a Markdown reader sees of a document."""

from itertools import groupby

from markdown_it import MarkdownIt
from markdown_it.token import Token

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
TEXT = ("text", "text_special", "softbreak")
PLAIN_BLOCKS = ("inline", "paragraph_open", "paragraph_close")


def visible(document: str) -> tuple[str, list[str]]:
    """Return the text of a Markdown document and its other elements in order.

    Blocks of text are joined by one blank line; the elements leave out paragraphs.
    """
    blocks: list[str] = []
    elements: list[str] = []
    for token in PARSER.parse(document):
        if token.type not in PLAIN_BLOCKS:
            elements.append(token.type)
        if token.type in ("fence", "code_block", "html_block"):
            blocks.append(token.content)
        for is_text, inline in groupby(token.children or [], lambda child: child.type in TEXT):
            if is_text:
                blocks.append("".join(map(_text, inline)))
            else:
                elements += (f"{child.type} {child.content}" for child in inline)
    return "\n\n".join(blocks), elements


def _text(token: Token) -> str:
    return "\n" if token.type == "softbreak" else token.content
