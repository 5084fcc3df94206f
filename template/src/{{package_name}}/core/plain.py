"""Texts from outside (values, file names, errors of libraries), made safe to show."""

from __future__ import annotations

import re

LONGEST_TEXT = 10_000
_REMARK = 60
# C0 but newline and tab; C1; Unicode's separators and directions; halves of surrogate pairs.
_CONTROL = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
)
_IN_TEXT = re.compile(f"[{_CONTROL}]")
_IN_LINE = re.compile(f"[{_CONTROL}\n]")


def plain(text: str, *, limit: int = LONGEST_TEXT, one_line: bool = False) -> str:
    r"""Return a text with control characters escaped, and with its middle cut out if it is long.

    Args:
        text: Anything.
        limit: How many characters are kept; an escape counts as one.
        one_line: Whether a newline also becomes `\n`.
    """
    if len(text) > limit:
        kept = limit - _REMARK
        head, tail = text[: kept - kept // 4], text[-(kept // 4) :]
        text = f"{head}… ({len(text) - kept:,} characters left out) …{tail}"
    return (_IN_LINE if one_line else _IN_TEXT).sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
