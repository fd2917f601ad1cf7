"""
The metrics of this process and of its garbage collections, as prometheus-client names them.
"""

from __future__ import annotations

from typing import Any

from prometheus_client import Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import CollectorRegistry
from twisted.internet.defer import Deferred

from evproxy.engine.threads import Threads
from evproxy.observe.metrics.family import Family


class ProcessMetrics:
    """
    The metrics of this process.

    :param reactor: calls from the thread that looks at the process.
    """

    def __init__(self, reactor: Any) -> None:
        self._registry = CollectorRegistry()
        GCCollector(self._registry)
        ProcessCollector(registry=self._registry)
        self._threads = Threads(reactor, "evproxy-metrics", 1)

    def collect(self) -> Deferred[tuple[Family, ...]]:
        """
        Return the families of the scope ``process`` as they are now.

        A thread does it: to count the open descriptors can take milliseconds.
        """
        return self._threads.call(self._collect).result

    def _collect(self) -> tuple[Family, ...]:
        return tuple(map(_family, self._registry.collect()))


def _family(metric: Metric) -> Family:
    name = metric.name + ("_total" if metric.type == "counter" else "")
    samples = tuple(
        (each.name.removeprefix(name), tuple(each.labels.items()), each.value)
        for each in metric.samples
    )
    return Family(name, metric.type, metric.documentation, samples)
