"""
Writes ``docs/which-model.md``: its text from ``pages/which-model.md.in``, its figures from results.

In the text, ``{FILE SCENARIO/MODEL/MEASURE/SETTING}`` is a figure with its unit, ``{table FILE
SCENARIO MEASURE MODEL …}`` a table over all settings, ``{wrong FILE}`` a table of how often
predictions were wrong, and ``{machine}`` where the results come from.  FILE is ``models`` or
``servers``.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

from .plot import shown
from .report import cell, count
from .results import Results, read
from .scenarios.catalogue import ALL as SCENARIOS
from .scenarios.contract import Measure, Scenario
from .titles import titles_of
from .verdict import verdict

HERE = Path(__file__).parent
PAGE = HERE / "pages" / "which-model.md.in"
TARGET = HERE.parent / "docs" / "which-model.md"
FILES = ("models", "servers")
WIDTH = 120

_BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


def kept() -> dict[str, Results]:
    """The kept results."""
    return {name: read(HERE / "results" / f"{name}.json") for name in FILES}


def page() -> str:
    """The page, from the text and the kept results."""
    return rendered(PAGE.read_text(), kept())


def rendered(text: str, results: Mapping[str, Results]) -> str:
    """`text` with its figures.

    :raises KeyError: if `results` lack one.
    """

    def figure(found: re.Match[str]) -> str:
        words = found[1].split()
        if words[0] in _WHOLE:
            return _WHOLE[words[0]](results, words[1:])
        file, name = words
        scenario, model, measure, setting = (*name.split("/"), "")[:4]
        value = results[file].value(scenario, model, measure, setting)
        unit = _measure(_BY_NAME[scenario], measure).unit
        return with_unit(value, unit)

    made = re.sub(r"\{([a-z][^{}]*)\}", figure, text)
    return "\n\n".join(_wrapped(block) for block in made.strip().split("\n\n")) + "\n"


def _wrapped(block: str) -> str:
    """A paragraph or a list, with lines of the same length; other blocks as they are."""
    if block.startswith(("#", "|", "    ")):
        return block
    items = re.split(r"\n(?=\* )", block)
    return "\n".join(
        textwrap.fill(
            " ".join(item.split()),
            WIDTH,
            subsequent_indent="  " if item.startswith("* ") else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for item in items
    )


def with_unit(value: float | None, unit: str) -> str:
    """A figure as prose has it."""
    if value is None:
        return "not reached"
    if unit == "KiB" and value >= 1024:
        value, unit = value / 1024, "MiB"
    return f"{shown(value)} {unit}".strip()


def _measure(scenario: Scenario, key: str) -> Measure:
    for measure in scenario.measures:
        if measure.key == key:
            return measure
    raise KeyError(f"{scenario.name}/{key}")


def _machine(results: Mapping[str, Results], words: list[str]) -> str:
    facts = results["models"].machine
    return (
        f"{facts['cores']} cores ({facts['CPU']}) with Python {facts['Python']}, where the load "
        f"average was {facts['load before the run']} before"
    )


def _table(results: Mapping[str, Results], words: list[str]) -> str:
    file, name, key, *only = words
    scenario = _BY_NAME[name]
    titles = titles_of(scenario)
    rows = [row for row in results[file].of(name, key) if not only or row.model in only]
    settings = sorted({row.setting for row in rows}, key=lambda each: each.zfill(9))
    if not rows:
        raise KeyError(f"{file} {name}/{key}")
    heads = [count(each) for each in settings]
    lines = [["", *(heads if scenario.setting else ["measured (predicted)"])]]
    for model in dict.fromkeys(row.model for row in rows):
        mine = {row.setting: row for row in rows if row.model == model}
        lines.append([titles[model], *(cell(mine.get(each)) or "–" for each in settings)])
    rule = ["---", *["---:"] * (len(lines[0]) - 1)]
    return "\n".join(
        f"| {' | '.join(line)} |".replace("|  |", "| |") for line in [lines[0], rule, *lines[1:]]
    )


def _wrong(results: Mapping[str, Results], words: list[str]) -> str:
    counts = []
    for scenario in SCENARIOS:
        rows = [row for row in results[words[0]].rows if row.scenario == scenario.name]
        known = [verdict(row.predicted, row.measured) for row in rows if row.predicted is not None]
        wrong = sum(each.startswith("wrong") for each in known)
        if known:
            counts.append(f"| {scenario.title} | {scenario.prediction} | {wrong} of {len(known)} |")
    return "\n".join(
        [
            "| scenario | what was predicted | wrong by more than a factor of two |",
            "|---|---|---|",
            *counts,
        ]
    )


_WHOLE: dict[str, Callable[[Mapping[str, Results], list[str]], str]] = {
    "machine": _machine,
    "table": _table,
    "wrong": _wrong,
}
