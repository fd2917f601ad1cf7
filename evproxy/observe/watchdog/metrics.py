"""
The metrics of a loop, as values from which any library can make the text of Prometheus.

The first two have the names, the buckets and the meaning that Synapse gave them, because Twisted's
users have dashboards for these (element-hq/synapse, ``synapse/metrics/_reactor_metrics.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isinf

from attrs import frozen

from evproxy.observe.watchdog.status import LoopStatus

Sample = tuple[str, tuple[tuple[str, str], ...], float]
"""The suffix that follows the name of the family, the labels, and the value."""


@frozen
class MetricFamily:
    """
    A metric family of Prometheus' text format (version 0.0.4).

    `kind` is ``counter``, ``gauge`` or ``histogram``.  The name of a counter ends in ``_total``.
    """

    name: str
    kind: str
    help: str
    samples: tuple[Sample, ...]


def loop_metrics(status: LoopStatus) -> Iterator[MetricFamily]:
    """Return the metrics of `status`."""
    yield MetricFamily(
        "python_twisted_reactor_tick_time",
        "histogram",
        "Tick time of the Twisted reactor (sec)",
        (
            *(
                ("_bucket", (("le", "+Inf" if isinf(bound) else str(bound)),), count)
                for bound, count in status.buckets
            ),
            ("_count", (), status.buckets[-1][1]),
            ("_sum", (), status.turn_seconds),
        ),
    )
    yield _single(
        "python_twisted_reactor_last_seen",
        "gauge",
        "Seconds since the Twisted reactor was last seen",
        status.since_last_turn,
    )
    yield _single(
        "evproxy_loop_recent_longest_turn_seconds",
        "gauge",
        "The longest turn of the loop within the last minute",
        status.recent_longest_turn,
    )
    yield _single(
        "evproxy_loop_collection_seconds_total",
        "counter",
        "Time that garbage collections held the loop",
        status.collection_seconds,
    )
    yield _single(
        "evproxy_loop_starved_seconds_total",
        "counter",
        "Time that the loop's thread waited for a processor",
        status.starved_seconds,
    )


def _single(name: str, kind: str, meaning: str, value: float) -> MetricFamily:
    return MetricFamily(name, kind, meaning, (("", (), value),))
