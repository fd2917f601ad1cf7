"""The problems of keys that belong to only some kinds of their table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from evproxy.config.declare import keys_of
from evproxy.config.problems import Path, Problem, listed, quoted


def misplaced(
    path: Path, table: dict[str, Any], kind: Any, cls: type, kinds: Sequence[str]
) -> Iterator[Problem]:
    """A `Problem` for each key of `table` that belongs to other kinds of `cls` only."""
    if kind not in kinds:
        return
    for key, each in keys_of(cls).items():
        owners = each.setting.kinds
        if key in table and owners and kind not in owners:
            yield Problem((*path, key), belongs_to(owners, kind))


def belongs_to(owners: Sequence[str], kind: str) -> str:
    """Why a table of `kind` cannot have a key of the kinds `owners`."""
    return f"belongs to kind {listed(owners, 'and')}, and this is {quoted(kind)}"
