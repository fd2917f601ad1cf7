"""The report: one HTML page without outside resources, and the same as a table in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path

from .plot import Bar, bars, shown
from .results import Results, Row
from .scenarios.contract import Measure, Scenario
from .verdict import verdict

_STYLE = Path(__file__).with_name("report.css")

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Why event loops: the study</title>
<style>
{style}</style>
</head>
<body>
<main>
<h1>Why event loops: the study</h1>
<p>Every model is a small TCP proxy for the same work. For each scenario, this page first predicts
what will happen, then shows what was measured on this machine, and says where the prediction was
wrong. A bar is what was measured; the line across it is the prediction.</p>
<p class="quiet">{machine}</p>
<nav aria-label="Scenarios"><ul>
{contents}
</ul></nav>
{sections}
</main>
</body>
</html>
"""


def html(
    results: Results,
    scenarios: Sequence[Scenario],
    titles: Callable[[Scenario], Mapping[str, str]],
) -> str:
    """The whole page, for the scenarios that have results; `titles` names who took part."""
    known = [each for each in scenarios if any(row.scenario == each.name for row in results.rows)]
    return _PAGE.format(
        style=_STYLE.read_text(),
        machine=escape("; ".join(f"{key}: {value}" for key, value in results.machine.items())),
        contents="\n".join(
            f'<li><a href="#{each.name}">{escape(each.title)}</a></li>' for each in known
        ),
        sections="\n".join(_section(results, each, titles(each)) for each in known),
    )


def _section(results: Results, scenario: Scenario, titles: Mapping[str, str]) -> str:
    parts = [
        f'<section id="{scenario.name}"><h2>{escape(scenario.title)}</h2>',
        f"<p>{escape(scenario.question)}</p>",
        f"<p><strong>Predicted:</strong> {escape(scenario.prediction)}</p>",
    ]
    for measure in scenario.measures:
        rows = results.of(scenario.name, measure.key)
        if measure.plotted and rows:
            parts.append(_plots(scenario, measure, rows, titles))
    wrong = [
        (row, measure)
        for measure in scenario.measures
        for row in results.of(scenario.name, measure.key)
        if verdict(row.predicted, row.measured).startswith("wrong")
    ]
    parts.append(f"<p><strong>What to see:</strong> {escape(scenario.lesson)}</p>")
    parts.append("<h3>Where the prediction was wrong</h3>")
    if wrong:
        parts.append("<ul>")
        parts += [f"<li>{escape(_wrong(row, m, titles))}</li>" for row, m in wrong]
        parts.append("</ul>")
    else:
        parts.append("<p>Nowhere: everything that was predicted came within a factor of two.</p>")
    parts += [
        f"<p>{escape(titles[row.model])} could not be measured: {escape(row.note)}</p>"
        for row in results.of(scenario.name, "failed")
    ]
    parts.append("<details><summary>All numbers</summary>")
    parts.append(_table(results, scenario, titles))
    parts.append("</details></section>")
    return "\n".join(parts)


def _plots(
    scenario: Scenario, measure: Measure, rows: Sequence[Row], titles: Mapping[str, str]
) -> str:
    parts = []
    settings = {row.setting for row in rows}
    for setting in sorted(settings, key=lambda each: (each.isdigit(), each.zfill(9))):
        some = [row for row in rows if row.setting == setting]
        title = measure.title + (f", {scenario.setting}: {count(setting)}" if setting else "")
        drawn = bars(
            title,
            measure.unit,
            [Bar(titles[row.model], row.measured, row.predicted) for row in some],
            measure.log,
        )
        scale = ", logarithmic" if measure.log else ""
        caption = f"{title}{f' ({measure.unit}{scale})' if measure.unit else ''}"
        parts.append(f"<figure><figcaption>{escape(caption)}</figcaption>{drawn}</figure>")
    return "\n".join(parts)


def _wrong(row: Row, measure: Measure, titles: Mapping[str, str]) -> str:
    at = f" at {count(row.setting)}" if row.setting else ""
    said = verdict(row.predicted, row.measured).removeprefix("wrong: ")
    unit = f" {measure.unit}" if measure.unit else ""
    return (
        f"{titles[row.model]}{at}, {measure.title}: predicted {shown(row.predicted)}{unit}, "
        f"measured {shown(row.measured)}{unit if row.measured is not None else ''} ({said})"
        + (f"; {row.note}" if row.note else "")
    )


def count(setting: str) -> str:
    """A setting as readers have it."""
    return f"{int(setting):,}" if setting.isdigit() else setting


def heading(scenario: Scenario) -> list[str]:
    """The heading of the table of a scenario."""
    units = [f"{m.title} ({m.unit})" if m.unit else m.title for m in scenario.measures]
    return ["model", *([scenario.setting] if scenario.setting else []), *units]


def lines(results: Results, scenario: Scenario, titles: Mapping[str, str]) -> list[list[str]]:
    """The rows of the table of a scenario: what was measured, with what was predicted after it."""
    cells: dict[tuple[str, str], dict[str, Row]] = {}
    for row in results.rows:
        if row.scenario == scenario.name:
            cells.setdefault((row.model, row.setting), {})[row.measure] = row
    return [
        [
            titles[model],
            *([count(setting)] if scenario.setting else []),
            *(cell(found.get(measure.key)) for measure in scenario.measures),
        ]
        for (model, setting), found in cells.items()
    ]


def cell(row: Row | None) -> str:
    """What was measured, and predicted; empty if nothing was."""
    if row is None:
        return ""
    text = shown(row.measured)
    return text if row.predicted is None else f"{text} ({shown(row.predicted)})"


def _table(results: Results, scenario: Scenario, titles: Mapping[str, str]) -> str:
    head = "".join(f'<th scope="col">{escape(each)}</th>' for each in heading(scenario))
    body = "".join(
        f'<tr><th scope="row">{escape(line[0])}</th>'
        + "".join(f"<td>{escape(each)}</td>" for each in line[1:])
        + "</tr>\n"
        for line in lines(results, scenario, titles)
    )
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="'
        f'All numbers: {escape(scenario.title)}"><table>'
        "<caption>Measured, and predicted in parentheses; – is not reached</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>"
    )
