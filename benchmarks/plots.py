"""The pictures of a run, as SVG: one bar a peer, its spread over the rounds as a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from attrs import frozen

from .peers import Peer
from .results import Results, Spread

matplotlib.use("Agg")
matplotlib.rcParams["svg.hashsalt"] = "evproxy"  # the same numbers give the same file
matplotlib.rcParams["svg.fonttype"] = "none"

from matplotlib import pyplot  # noqa: E402

_OURS = "#1b6ca8"
_OTHERS = "#a9b4be"


@frozen
class Panel:
    """One row of bars: a metric of a measure."""

    measure: str
    metric: str
    title: str


PLOTS: dict[str, Sequence[Panel]] = {
    "benchmark-bulk": (
        Panel("bulk-1", "cpu", "One stream: CPU seconds per GiB"),
        Panel("bulk-4", "cpu", "Four streams: CPU seconds per GiB"),
        Panel("bulk-both", "cpu", "Both ways at once: CPU seconds per GiB"),
    ),
    "benchmark-requests": (
        Panel("requests-1", "cpu", "1 connection: CPU µs per request"),
        Panel("requests-50", "cpu", "50 connections: CPU µs per request"),
        Panel("requests-500", "cpu", "500 connections: CPU µs per request"),
        Panel("connections", "cpu", "CPU µs per new connection"),
    ),
    "benchmark-latency": (
        Panel("mixed", "p50", "Small requests under four bulk streams: p50, ms"),
        Panel("mixed", "p99", "Small requests under four bulk streams: p99, ms"),
    ),
    "benchmark-memory": (
        Panel("memory", "before", "KiB per idle session, before a request"),
        Panel("memory", "after", "KiB per idle session, after one request"),
        Panel("idle", "growth", "CPU per request with 4,500 idle sessions, to none"),
    ),
}


def draw(results: Results, peers: Sequence[Peer], directory: Path) -> None:
    """Write every plot that the run has numbers for into ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, panels in PLOTS.items():
        known = [panel for panel in panels if _bars(results, peers, panel)]
        if known:
            _draw(results, peers, known, directory / f"{name}.svg")


def _draw(results: Results, peers: Sequence[Peer], panels: Sequence[Panel], path: Path) -> None:
    bars = [_bars(results, peers, panel) for panel in panels]
    heights = [0.5 + 0.26 * len(each) for each in bars]
    figure, rows = pyplot.subplots(
        len(panels),
        1,
        figsize=(7, sum(heights)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for axes, panel, spreads in zip(rows[:, 0], panels, bars, strict=True):
        axes.set_title(panel.title, loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(len(spreads) - 0.5, -0.5)
        for place, (name, spread) in enumerate(spreads):
            reach = [[spread.median - spread.least], [spread.greatest - spread.median]]
            colour = _OURS if name.startswith("evproxy") else _OTHERS
            axes.barh(place, spread.median, xerr=reach, color=colour, ecolor="#444444")
        axes.set_yticks(range(len(spreads)), [name for name, _ in spreads], fontsize=9)
        axes.set_xlim(left=0)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _bars(results: Results, peers: Sequence[Peer], panel: Panel) -> Sequence[tuple[str, Spread]]:
    """Each peer that has a value, and what that is."""
    spreads = [
        (peer.name, results.spread(panel.measure, peer.name, panel.metric)) for peer in peers
    ]
    return [(name, spread) for name, spread in spreads if spread is not None]
