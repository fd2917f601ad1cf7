r"""
Escapes text from outside, so that it is safe in a log and on a terminal.

Text from peers, servers and files may contain anything: control characters that a terminal
executes, marks that reverse the direction of text, invisible characters.  Call `escaped` once
for each such text, where evproxy receives it.  Call `printable` for a line made of several
parts, where evproxy writes it.  Both write a character as Python's string literals do:
``\n``, ``\x1b``, ``\u202e``, ``\U000e0041``.
"""

from __future__ import annotations

import re

# These are printable for Python, but invisible according to Unicode
# (Default_Ignorable_Code_Point in DerivedCoreProperties.txt).
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_BEGINS_ESCAPES = frozenset("\\nrtxuU")


def escaped(text: str) -> str:
    r"""
    `text` from outside, with every character escaped that is not printable.

    Two different texts never have the same result: a backslash is doubled where it would look
    like the beginning of an escape, and stays single elsewhere, as in ``tcp:\:\:1:80``.  So
    never escape a text twice.
    """
    if "\\" not in text:
        return printable(text)
    parts = []
    for here, after in zip(text, text[1:] + " ", strict=True):
        doubled = here == "\\" and (after in _BEGINS_ESCAPES or not _is_visible(after))
        parts.append("\\\\" if doubled else _shown(here))
    return "".join(parts)


def printable(line: str) -> str:
    """`line` with every character escaped that is not printable."""
    if line.isprintable() and (line.isascii() or _INVISIBLE.search(line) is None):
        return line
    return "".join(map(_shown, line))


def _shown(character: str) -> str:
    return character if _is_visible(character) else character.encode("unicode_escape").decode()


def _is_visible(character: str) -> bool:
    return character.isprintable() and _INVISIBLE.match(character) is None
