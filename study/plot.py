"""
Plots as SVG text for an HTML page: grouped bars, and lines over a setting.

Colours come from the style sheet of the page, so that a plot follows its light or dark scheme.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from attrs import frozen

WIDTH = 760
_LABEL = 230
_ROW = 26
_RIGHT = 120


@frozen
class Bar:
    """One bar: `label`, what was measured, and what was predicted; ``None``: no such number."""

    label: str
    measured: float | None
    predicted: float | None


def shown(value: float | None) -> str:
    """A number for readers: three digits that count, thousands apart; whole ones as they are."""
    if value is None:
        return "–"
    if abs(value) < 0.005:
        return "0"
    if float(value).is_integer():
        return f"{int(value):,}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{round(value, min(digits, 2)):,.{min(digits, 2)}f}"


def bars(title: str, unit: str, rows: Sequence[Bar], log: bool) -> str:
    """One bar for each row; a mark shows the prediction, the tooltip both numbers."""
    known = [v for row in rows for v in (row.measured, row.predicted) if v is not None and v > 0]
    most = max(known, default=1.0)
    least = min([*known, most / 10]) / 1.5 if log else 0.0
    height = _ROW * len(rows) + 8
    space = WIDTH - _LABEL - _RIGHT

    def place(value: float) -> float:
        if log:
            if value <= least:
                return 0.0
            return space * math.log(value / least) / math.log(most / least)
        return space * max(value, 0.0) / most

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">',
    ]
    for number, row in enumerate(rows):
        top = number * _ROW + 4
        middle = top + _ROW / 2
        said = f"{row.label}: measured {shown(row.measured)}, predicted {shown(row.predicted)}"
        parts.append(f"<g><title>{escape(f'{said} {unit}')}</title>")
        parts.append(
            f'<text class="label" x="{_LABEL - 10}" y="{middle + 4}" text-anchor="end">'
            f"{escape(row.label)}</text>"
        )
        end = place(row.measured) if row.measured is not None else 0.0
        parts.append(
            f'<rect class="bar" x="{_LABEL}" y="{top + 4}" width="{max(end, 1):.1f}" '
            f'height="{_ROW - 8}" rx="3"/>'
        )
        if row.predicted is not None:
            at = _LABEL + place(row.predicted)
            parts.append(
                f'<line class="predicted" x1="{at:.1f}" x2="{at:.1f}" y1="{top + 1}" '
                f'y2="{top + _ROW - 1}"/>'
            )
            end = max(end, place(row.predicted))
        text = f"{shown(row.measured)} {unit}" if row.measured is not None else "not reached"
        parts.append(
            f'<text class="value" x="{_LABEL + end + 8:.1f}" y="{middle + 4}">{escape(text)}</text>'
        )
        parts.append("</g>")
    parts.append("</svg>")
    return "".join(parts)
