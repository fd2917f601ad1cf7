"""
Text in a line of the access log: words, quoted strings, JSON strings and times.

This module is pure, except that it remembers the last second.  Text from outside cannot break a
line: what is not printable is escaped, and strings are cut to `LONGEST` characters.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from functools import lru_cache

from evproxy.escape import printable

LONGEST = 1000
"""The most characters of a string in a line."""

is_plain: Callable[[str], object] = re.compile(
    rf'[^\x00- "\\\x7f-\U0010ffff]{{1,{LONGEST}}}'
).fullmatch
"""Whether a string is short ASCII that needs no escapes; this check is cheap."""


# One more, because a float just below the next second may round up.
_MILLISECONDS = [*(f".{each:03}" for each in range(1000)), ".999"]


class Stamps:
    """
    Times with milliseconds; the text of a second is made once.

    :param second: returns the text of a whole second, in seconds since 1970.
    """

    def __init__(self, second: Callable[[int], str]) -> None:
        self._text_of = second
        self._second = -1
        self._shown = ""

    def of(self, when: float) -> str:
        """Return `when`, in seconds since 1970, as text."""
        second = int(when)
        if second != self._second:
            self._second, self._shown = second, self._text_of(second)
        return self._shown + _MILLISECONDS[int((when - second) * 1000)]


def utc(second: int) -> str:
    """ISO 8601 in UTC, without its zone: ``2026-11-24T07:03:11``."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def word(text: str) -> str:
    r"""`text` as one word: ``-`` if it is empty, a space as ``\x20``."""
    if not text:
        return "-"
    if is_plain(text):
        return text if text != "-" else r"\x2d"
    return quoted(text).replace(" ", r"\x20")


name_word = lru_cache(maxsize=1024)(word)
"""The same for names, which are few."""


def quoted(text: str) -> str:
    """Return `text` for use between quotes: line ends and direction marks are escaped."""
    if not text:
        return text
    return printable(_cut(text).replace("\\", r"\\").replace('"', r"\""))


def json_string(text: str) -> str:
    """`text` as a JSON string in ASCII, with its quotes."""
    if not text:
        return '""'
    return f'"{text}"' if is_plain(text) else json.dumps(_cut(text))


name_json = lru_cache(maxsize=1024)(json_string)
"""The same for names, which are few."""


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
