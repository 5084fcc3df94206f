"""Texts that are hard to quote."""

from __future__ import annotations

import random

# Pieces that mean something to at least one of the formats.
PIECES = [
    *" ab1.,:;!?'\"`\\/#*_-+=<>|~&@$%^()[]{}\n",
    *("é", "日", "🚀", "👩‍💻", "\x7f", "\x85", "\xa0", "\u2028", "\ufeff"),
    *("\n\n", "\n- ", "\n1. ", "\n# ", "\n> ", "\n    ", "  \n", " #", "---", "===", "```"),
    *("<b>", "<!-- ", "&amp;", "&#65;", "](x)", "![", "**", "__", "~~", "\n|-|\n", "snake_case"),
    *("{{ x }}", "{% x %}", "{# x #}", "\\n", "\\u0041", '"""', "'''", "null", "${x}"),
]


def make_texts(count: int) -> list[str]:
    """Return texts of random pieces, the same ones each time."""
    chance = random.Random(0)
    return ["".join(chance.choices(PIECES, k=chance.randint(1, 12))) for _ in range(count)]
