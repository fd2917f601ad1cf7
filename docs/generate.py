"""
Writes what the pages of this folder take from the code: the tables of settings and options.

    .venv/bin/python docs/generate.py

A table stands between two comments, ``<!-- table: NAME -->`` and ``<!-- end -->``; a test
fails where one is not what this makes of it.  ``which-model.md`` is written whole, from
``study/pages/which-model.md.in`` and the kept results of the study.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

from evproxy.cli.tap import OPTIONS
from evproxy.config.reference import table, table_of
from evproxy.model import UpstreamServer
from evproxy.observe.metrics.declared import DECLARED, OF_WORKERS
from evproxy.settings import (
    AccessLogSettings,
    AdminSettings,
    Discover,
    Ejection,
    FaultSettings,
    HealthCheck,
    ListenerSettings,
    ListenerTLS,
    Mirror,
    PoolSettings,
    PoolTLS,
    RouteSettings,
    Settings,
    Timeouts,
    WatchdogSettings,
)

KEYS = (
    Settings,
    ListenerSettings,
    ListenerTLS,
    Timeouts,
    AccessLogSettings,
    WatchdogSettings,
    AdminSettings,
    PoolSettings,
    PoolTLS,
    Mirror,
    RouteSettings,
    FaultSettings,
    UpstreamServer,
    HealthCheck,
    Ejection,
    Discover,
)

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent


def layer_tables() -> dict[str, str]:
    """For each layer, its modules and the first paragraph of what they say of themselves."""
    sys.path.insert(0, str(ROOT))
    from tests.support.layers import LAYERS, layer_of

    rows: dict[int, list[list[str]]] = {number: [] for number in range(len(LAYERS))}
    for path in sorted((ROOT / "evproxy").rglob("*.py")):
        name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        layer = layer_of(name.removesuffix(".__init__"))
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        paragraph = " ".join(text.split("\n\n")[0].split()).replace("``", "`")
        if layer is not None:
            shown = path.relative_to(ROOT / "evproxy").as_posix()
            rows[int(layer)].append([f"`{shown}`", paragraph])
    return {
        f"layer {number}": table(["Module", "What it holds"], found)
        for number, found in rows.items()
    }


def examples() -> dict[str, str]:
    """The files of ``examples/testing``, as code in Markdown."""
    return {
        f"example {path.name}": f"```python\n{path.read_text()}```\n"
        for path in sorted((ROOT / "examples" / "testing").glob("*.py"))
    }


def metrics_table() -> str:
    """Every metric of evproxy."""
    rows = [
        [
            f"`{each.name}`",
            each.kind,
            each.scope,
            ", ".join(f"`{label}`" for label in each.labels) or "none",
            each.help,
        ]
        for each in (*DECLARED, *OF_WORKERS)
    ]
    return table(["Metric", "Kind", "Scope", "Labels", "Meaning"], rows)


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
        **layer_tables(),
        **examples(),
        "metrics": metrics_table(),
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
    sys.path.insert(0, str(ROOT))
    from study.which_model import TARGET
    from study.which_model import page as which_model

    if not TARGET.exists() or TARGET.read_text() != which_model():
        TARGET.write_text(which_model())
        print(f"{TARGET.name}: written anew")
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text()
        if generated(text) != text:
            page.write_text(generated(text))
            print(f"{page.name}: written anew")


if __name__ == "__main__":
    main()
