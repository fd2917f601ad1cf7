"""A run as Markdown: what the terminal shows and what RESULTS.md holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from attrs import frozen

from .bar import HAPROXY, verdicts
from .bench import Plan
from .measures import ALL as MEASURES
from .measures import Measure, Metric
from .peers import Peer
from .results import Results, Spread

REFERENCES = ("haproxy", "haproxy-64k", "haproxy-splice", "nginx", "nginx-64k")
_UNKNOWN = "n/a"


@frozen
class Context:
    """What a run was: when, on what, of what, and how much."""

    date: str
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    plan: Plan
    peers: Sequence[Peer]
    disturbance: Spread | None = None


def number(value: float) -> str:
    """Three significant digits without an exponent; whole numbers from a thousand on."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    digits = 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"


def ratio(spread: Spread | None) -> str:
    """A ratio and, in brackets, the least and the greatest of the rounds."""
    if spread is None:
        return _UNKNOWN
    return f"{spread.median:.2f} ({spread.least:.2f} to {spread.greatest:.2f})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: the first column to the left, the others to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


Rows = Sequence[tuple[Measure, Metric]]


def measured(results: Results) -> Iterator[tuple[Measure, Metric]]:
    """Every metric of the measures that were run, in the order of the tables."""
    for measure in MEASURES:
        if measure.name in results.samples:
            for metric in measure.metrics:
                yield measure, metric


def groups(results: Results, peers: Sequence[Peer]) -> Iterator[tuple[Rows, Sequence[Peer]]]:
    """The rows and the columns of each table: measures in which the same peers took part.

    So a peer that is in a few measures only is not a column of n/a in all others.
    """
    rows: dict[tuple[Peer, ...], list[tuple[Measure, Metric]]] = {}
    for measure, metric in measured(results):
        took_part = tuple(peer for peer in peers if peer.name in results.samples[measure.name])
        rows.setdefault(took_part, []).append((measure, metric))
    for took_part, which in rows.items():
        yield which, took_part


def medians(results: Results, peers: Sequence[Peer]) -> str:
    """The tables of medians over the rounds; of the loop lags, the largest of all rounds."""

    def cell(measure: Measure, metric: Metric, peer: Peer) -> str:
        spread = results.spread(measure.name, peer.name, metric.key)
        if spread is None:
            return _UNKNOWN
        return number(spread.greatest if metric.is_lag else spread.median)

    def title(metric: Metric) -> str:
        return f"{metric.title}, {metric.unit}" if metric.unit else metric.title

    return _tables(
        _table([(title(metric), measure, metric) for measure, metric in rows], columns, cell)
        for rows, columns in groups(results, peers)
    )


def ratios(results: Results, peers: Sequence[Peer], reference: str) -> str:
    """The tables of ratios to one peer: the median, and the least and greatest, of the rounds."""

    def cell(measure: Measure, metric: Metric, peer: Peer) -> str:
        return ratio(results.ratio(measure.name, metric.key, peer.name, reference))

    return _tables(
        _table(
            [(metric.title, measure, metric) for measure, metric in rows if not metric.is_lag],
            [peer for peer in columns if peer.name != reference],
            cell,
        )
        for rows, columns in groups(results, peers)
        if any(peer.name == reference for peer in columns)
    )


def _table(
    rows: Sequence[tuple[str, Measure, Metric]],
    columns: Sequence[Peer],
    cell: Callable[[Measure, Metric, Peer], str],
) -> str:
    """A table of the rows in which any column has a value; empty if there is none."""
    lines = [
        [title, *(cell(measure, metric, peer) for peer in columns)]
        for title, measure, metric in rows
    ]
    known = [line for line in lines if set(line[1:]) - {_UNKNOWN}]
    return table(["", *(peer.name for peer in columns)], known) if known else ""


def _tables(tables: Iterable[str]) -> str:
    return "\n\n".join(filter(None, tables))


def bar(results: Results) -> str:
    """The bar, and whether the run met it; empty without evproxy's numbers."""
    rows = [
        [
            verdict.line.title,
            f"≤ {verdict.line.bar:g}",
            f"≤ {verdict.line.stretch:g}",
            ratio(verdict.value),
            verdict.outcome,
            f"{verdict.rounds_within(verdict.line.bar)} of {len(verdict.rounds)}",
            f"{verdict.rounds_within(verdict.line.stretch)} of {len(verdict.rounds)}",
        ]
        for verdict in verdicts(results)
    ]
    head = ["", "bar", "stretch", "evproxy", "", "rounds that met it", "and the stretch"]
    return table(head, rows) if rows else ""


def troubles(results: Results) -> str:
    """What went wrong, one line each; empty if nothing did."""
    failed = [
        f"* {measure}: {peer} failed in {rounds} round{'s' if rounds > 1 else ''}"
        for measure, peer, rounds in results.failures()
    ]
    refused = [
        f"* {measure}: {count} requests through {peer} failed"
        for measure, peer, count in results.errors()
    ]
    return "\n".join(failed + refused)


def document(results: Results, context: Context) -> str:
    """RESULTS.md."""
    peers = context.peers
    names = {peer.name for peer in peers}
    rounds = context.plan.rounds
    parts = [
        "# Results",
        "Written by `python -m benchmarks`; README.md says what each measure is.",
        f"{context.date}, {rounds} round{'s' if rounds > 1 else ''}, interleaved. "
        + "; ".join(f"{key}: {value}" for key, value in context.machine.items())
        + ".",
        "Versions: "
        + ", ".join(f"{name} {version}" for name, version in context.versions.items())
        + ".",
        "The proxy has one core to itself; load tools, upstream servers and the benchmark "
        "share the others. That is the same for every peer. " + _disturbance(context.disturbance),
        "\n".join(f"* {peer.name}: {peer.title}" for peer in peers),
    ]
    said = [sentence for name, sentence in HAPROXY.items() if name in names]
    note = ["Median, least and greatest of the rounds; the median decides.", *said]
    parts += _section("The bar", bar(results), " ".join(note))
    parts += _section("What went wrong", troubles(results))
    parts += _section(
        "Medians", medians(results, peers), "Of the loop lags, the largest of all rounds."
    )
    for reference in REFERENCES:
        if reference in names:
            parts += _section(
                f"Ratios to {reference}",
                ratios(results, peers, reference),
                "Taken within each round: median, least and greatest.",
            )
    return "\n\n".join(parts) + "\n"


def _disturbance(share: Spread | None) -> str:
    if share is None:
        return ""
    return (
        f"Anything else took {share.median:.1%} of the proxy's core (median over all measures; "
        f"at most {share.greatest:.1%})."
    )


def _section(title: str, body: str, note: str = "") -> list[str]:
    if not body:
        return []
    return [f"## {title}", *([note] if note else []), body]


def summary(results: Results, peers: Sequence[Peer]) -> dict[str, object]:
    """The medians, ratios and verdicts as plain values, for results.json."""

    def plain(spread: Spread | None) -> list[float] | None:
        return None if spread is None else [spread.median, spread.least, spread.greatest]

    return {
        "columns": ["median", "least", "greatest"],
        "values": {
            f"{measure.name}/{metric.key}": {
                peer.name: plain(results.spread(measure.name, peer.name, metric.key))
                for peer in peers
            }
            for measure, metric in measured(results)
        },
        "ratios": {
            reference: {
                f"{measure.name}/{metric.key}": {
                    peer.name: plain(results.ratio(measure.name, metric.key, peer.name, reference))
                    for peer in peers
                }
                for measure, metric in measured(results)
            }
            for reference in REFERENCES
            if any(peer.name == reference for peer in peers)
        },
        "bar": {
            verdict.line.title: {
                "value": plain(verdict.value),
                "bar": verdict.line.bar,
                "stretch": verdict.line.stretch,
                "outcome": verdict.outcome,
                "rounds": list(verdict.rounds),
            }
            for verdict in verdicts(results)
        },
    }
