"""
Writes what the pages of this folder take from the code: the tables of settings and options.

    .venv/bin/python docs/generate.py

A table stands between two comments, ``<!-- table: NAME -->`` and ``<!-- end -->``; a test
fails where one is not what this makes of it.
"""

from __future__ import annotations

import re
from pathlib import Path

from evproxy.config.reference import table, table_of
from evproxy.model import UpstreamServer
from evproxy.settings import (
    Discover,
    Ejection,
    HealthCheck,
    ListenerSettings,
    PoolSettings,
    Settings,
    Timeouts,
)
from evproxy.tap import OPTIONS

KEYS = (
    Settings,
    ListenerSettings,
    Timeouts,
    PoolSettings,
    UpstreamServer,
    HealthCheck,
    Ejection,
    Discover,
)

DOCS = Path(__file__).resolve().parent


def tables() -> dict[str, str]:
    """Every table that a page may have, by its name."""
    options = [
        [
            f"`--{each.name}`",
            each.rule.expected,
            f"`{each.default}`" if each.default else "none",
            each.meaning,
        ]
        for each in OPTIONS
    ]
    return {
        **{keys.__name__: table_of(keys) for keys in KEYS},
        "options": table(["Option", "Value", "Default", "Meaning"], options),
    }


def generated(text: str) -> str:
    """`text`, a page, with its tables as the code has them."""

    made_of = tables()

    def made(found: re.Match[str]) -> str:
        return f"{found[1]}\n\n{made_of[found[2]]}\n{found[3]}"

    return re.sub(
        r"^(<!-- table: (.+?) -->)$.*?^(<!-- end -->)$", made, text, flags=re.MULTILINE | re.DOTALL
    )


def main() -> None:
    """Rewrite every page that is not what it should be."""
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text()
        if generated(text) != text:
            page.write_text(generated(text))
            print(f"{page.name}: written anew")


if __name__ == "__main__":
    main()
