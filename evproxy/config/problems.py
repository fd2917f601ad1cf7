"""
The problems of a configuration file: one line for each, with the path of the key.

Shows every key and value of a TOML document in one line, and finds the place of a path in the
document.  Knows nothing about settings.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import Any

from attrs import frozen

Path = tuple[str | int, ...]
"""Where a value is in the document: keys of tables and indices of arrays, from the top."""

_LONGEST_SHOWN = 60
_WIDEST_SHOWN_INTEGER = 64


@frozen
class Problem:
    """One problem, and the `path` of its key."""

    path: Path
    message: str

    def __str__(self) -> str:
        return f"{shown_path(self.path)}: {self.message}"


def in_document_order(problems: Iterable[Problem], document: dict[str, Any]) -> list[Problem]:
    """`problems` in the order of their keys in `document`; a missing key comes before its table."""
    return sorted(problems, key=lambda problem: _position(problem.path, document))


def _position(path: Path, document: dict[str, Any]) -> tuple[int, ...]:
    position: list[int] = []
    here: Any = document
    for step in path:
        if isinstance(here, dict) and step in here:
            position.append(list(here).index(step))
        elif isinstance(here, list) and isinstance(step, int) and step < len(here):
            position.append(step)
        else:
            return (*position, -1)
        here = here[step]
    return tuple(position)


def shown_path(path: Path) -> str:
    """`path` as a user would write it: ``pools.web.upstreams[1].weight``."""
    parts: list[str] = []
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        else:
            parts.append(("." if parts else "") + _shown_key(step))
    return "".join(parts)


def _shown_key(key: str) -> str:
    bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if bare else quoted(key)


def shown(value: object) -> str:
    """`value` as the file has it, or its type if the value would be long."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, int) and value.bit_length() > _WIDEST_SHOWN_INTEGER:
        return "a huge number"
    return str(value)


def instance_of(kind: type) -> str:
    """An object of the class `kind`, in words: ``an Ejection``."""
    article = "an" if kind.__name__.startswith(tuple("AEIOU")) else "a"
    return f"{article} {kind.__name__}"


def quoted(text: str) -> str:
    """`text` in quotes on one line, cut if `text` is long."""
    cut = text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"
    return json.dumps(cut, ensure_ascii=not cut.isprintable())


def listed(words: Iterable[str], conjunction: str) -> str:
    """`words` in quotes, as a list in a sentence: ``"a", "b" or "c"``."""
    *first, last = [quoted(word) for word in words]
    return f"{', '.join(first)} {conjunction} {last}" if first else last


def did_you_mean(word: str, known: Iterable[str], least: float = 0.6) -> str:
    """
    ``, did you mean "balance"?`` if `word` is similar to one of the `known` words, else ''.

    `least`: the least similarity, from 0 to 1 (`difflib.SequenceMatcher.ratio`).
    """
    by_lower_case = {other.lower(): other for other in known}
    near = difflib.get_close_matches(word.lower(), by_lower_case, n=1, cutoff=least)
    return f", did you mean {quoted(by_lower_case[near[0]])}?" if near else ""
