r"""
Text from outside, made fit for a log and a terminal.

What peers, servers and files say may hold anything: control characters that command a
terminal, marks that reverse the direction of what follows, characters that nobody sees.
`escaped` is for one such text, once, where it comes in; `printable` is for a line that is
made of several parts, where it goes out.  Both write a character as Python's string
literals do: ``\n``, ``\x1b``, ``\u202e``, ``\U000e0041``.
"""

from __future__ import annotations

import re

# Python calls these printable, and Unicode says that nothing is seen of them
# (Default_Ignorable_Code_Point in DerivedCoreProperties.txt).
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_BEGINS_ESCAPES = frozenset("\\nrtxuU")


def escaped(text: str) -> str:
    r"""
    `text` from outside with everything escaped that would not be printed as it is.

    Two texts never become the same: a backslash is doubled where it would read as the
    beginning of an escape, and stays alone elsewhere, as in ``tcp:\:\:1:80``.  So never
    give it what it gave.
    """
    if "\\" not in text:
        return printable(text)
    parts = []
    for here, after in zip(text, text[1:] + " ", strict=True):
        doubled = here == "\\" and (after in _BEGINS_ESCAPES or not _is_seen(after))
        parts.append("\\\\" if doubled else _shown(here))
    return "".join(parts)


def printable(line: str) -> str:
    """`line` as it is if all of it can be printed, else with the rest escaped."""
    if line.isprintable() and (line.isascii() or _UNSEEN.search(line) is None):
        return line
    return "".join(map(_shown, line))


def _shown(character: str) -> str:
    return character if _is_seen(character) else character.encode("unicode_escape").decode()


def _is_seen(character: str) -> bool:
    return character.isprintable() and _UNSEEN.match(character) is None
