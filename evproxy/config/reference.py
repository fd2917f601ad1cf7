"""The tables of the reference, in Markdown, from the declarations of settings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from evproxy.config.declare import Declared, keys_of


def table_of(keys: type) -> str:
    """The table of the keys that the attrs class `keys` declares."""
    found = list(keys_of(keys).values())
    with_kinds = any(each.setting.kinds for each in found)
    head = ["Key", *(["Kinds"] if with_kinds else []), "Value", "Default", "Meaning"]
    rows = [
        [
            f"`{each.name}`",
            *([_kinds(each)] if with_kinds else []),
            each.setting.rule.expected,
            _default(each),
            each.setting.meaning,
        ]
        for each in found
    ]
    return table(head, rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    first, *others = [f"| {' | '.join(cells)} |\n" for cells in [head, *rows]]
    return first + "|" + "---|" * len(head) + "\n" + "".join(others)


def _kinds(each: Declared) -> str:
    return ", ".join(f"`{kind}`" for kind in each.setting.kinds) or "all"


def _default(each: Declared) -> str:
    if each.setting.default_shown:
        return each.setting.default_shown
    if each.required or each.setting.required_for:
        return "required"
    return "none" if each.default is None else f"`{as_toml(each.default)}`"


def as_toml(value: Any) -> str:
    """`value`, the default of a setting, as a file has it."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
