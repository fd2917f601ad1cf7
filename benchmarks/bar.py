"""What evproxy has to reach: each line of the bar, and whether a run met it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import frozen

from .peers import OPERATED
from .picking import POLICIES, growth
from .results import Results, Spread

SUBJECT = "evproxy"
HAPROXY = {
    "haproxy": "haproxy is HAProxy with `option splice-auto`, which leaves it to HAProxy when to "
    "splice: on loopback hardly ever, so this one copies.",
    "haproxy-splice": "haproxy-splice is HAProxy told to splice everything from the first byte, "
    "through pipes of 1 MiB.",
}
"""What the two that stand for "HAProxy with splice" are, a sentence each."""


@frozen
class Line:
    """One line of the bar: the most a value may be.

    Attributes:
        title: what is compared.
        measure: the measure it is taken from.
        metric: the metric of that measure.
        subject: the peer that must reach it.
        reference: the peer it is divided by, or None for the value itself.
        bar: what it must not exceed.
        stretch: what it would be good not to exceed.
    """

    title: str
    measure: str
    metric: str
    reference: str | None
    bar: float
    stretch: float
    subject: str = SUBJECT


@frozen
class Verdict:
    """A line of the bar, and what the run gave for it: in all, and in each round."""

    line: Line
    value: Spread
    rounds: Sequence[float | None]

    @property
    def outcome(self) -> str:
        """``missed``, ``met``, or ``stretch met``; the median decides."""
        if self.value.median <= self.line.stretch:
            return "stretch met"
        return "met" if self.value.median <= self.line.bar else "missed"

    def rounds_within(self, most: float) -> int:
        """In how many of the rounds it was not exceeded; one without a value does not count."""
        return sum(value is not None and value <= most for value in self.rounds)


def _bulk(reference: str) -> Iterator[Line]:
    for measure, what in (
        ("bulk-1", "one stream"),
        ("bulk-4", "four streams"),
        ("bulk-both", "both ways"),
    ):
        yield Line(
            f"bulk, {what}: CPU per GiB, to {reference}", measure, "cpu", reference, 0.5, 0.35
        )


def _picking() -> Iterator[Line]:
    for policy in POLICIES:
        title = f"new connections: CPU, {policy} among 1,000, to 1"
        yield Line(title, "picking", growth(policy), None, 1.2, 1.05)


def _small_under_bulk(reference: str) -> Iterator[Line]:
    for metric in ("p50", "p99"):
        title = f"small requests under four bulk streams: {metric}, to {reference}"
        yield Line(title, "mixed", metric, reference, 0.5, 0.15)


def _operated() -> Iterator[Line]:
    for measure in sorted(OPERATED):
        title = f"{measure}: CPU with the admin interface, to without"
        yield Line(title, measure, "cpu", SUBJECT, 1.02, 1.0, subject="evproxy-admin")


BAR: tuple[Line, ...] = (
    *_bulk("haproxy"),
    *_bulk("haproxy-splice"),
    *_bulk("nginx"),
    *_bulk("nginx-64k"),
    Line("requests at 50 connections: CPU, to haproxy", "requests-50", "cpu", "haproxy", 1.1, 1.0),
    Line("requests at 1 connection: CPU, to haproxy", "requests-1", "cpu", "haproxy", 1.15, 1.1),
    Line("new connections: CPU, to haproxy", "connections", "cpu", "haproxy", 1.4, 1.25),
    Line(
        "new connections: CPU with the access log, to without",
        "connections",
        "cpu",
        SUBJECT,
        1.1,
        1.05,
        subject="evproxy-logged",
    ),
    *_operated(),
    *_small_under_bulk("haproxy"),
    *_small_under_bulk("haproxy-splice"),
    Line("memory per idle session, before a request, KiB", "memory", "before", None, 2.5, 1.5),
    Line("memory per idle session, after one request, KiB", "memory", "after", None, 2.5, 1.5),
    Line("CPU per request with 4,500 idle sessions, to none", "idle", "growth", None, 1.15, 1.05),
    *_picking(),
    Line("TLS, one download: CPU per GiB, to haproxy", "tls-bulk", "cpu", "haproxy", 0.9, 0.75),
    Line(
        "TLS, requests at 50 connections: CPU, to haproxy",
        "tls-requests-50",
        "cpu",
        "haproxy",
        1.4,
        1.2,
    ),
    Line("TLS, full handshakes: CPU, to haproxy", "tls-full", "cpu", "haproxy", 1.15, 1.0),
    Line("TLS, resumed handshakes: CPU, to haproxy", "tls-resumed", "cpu", "haproxy", 1.1, 0.95),
    Line("TLS, memory per idle session, KiB", "tls-memory", "after", None, 24, 16),
)


def verdicts(results: Results) -> Iterator[Verdict]:
    """Every line of the bar that the run has numbers for."""
    for line in BAR:
        if line.reference is None:
            rounds = results.rounds(line.measure, line.subject, line.metric)
        else:
            rounds = results.ratios(line.measure, line.metric, line.subject, line.reference)
        value = Spread.of(value for value in rounds if value is not None)
        if value is not None:
            yield Verdict(line, value, rounds)
