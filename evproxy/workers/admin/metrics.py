"""
The metrics of all workers: sums of what they count, and what each process has of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from evproxy.admin.metrics import Metrics, Scrape, Servers
from evproxy.admin.operations import Context, Operation
from evproxy.admin.process_metrics import ProcessMetrics
from evproxy.engine.slices import in_slices
from evproxy.observe.metrics.declared import BY_NAME
from evproxy.observe.metrics.family import AnyFamily, Family, MetricSource, of_processes
from evproxy.observe.watchdog.metrics import loop_metrics
from evproxy.workers.admin.crew import Crew
from evproxy.workers.admin.whole import Whole, numbers_of

SUPERVISOR = "supervisor"
"""The label ``worker`` of what belongs to the supervisor."""


class AllWorkers:
    """
    The `evproxy.admin.metrics.Source` of all workers.

    :param context: the reactor.
    :param proxy: the supervisor.
    :param crew: its workers.
    """

    def __init__(self, context: Context, proxy: Whole, crew: Crew) -> None:
        self._reactor = context.reactor
        self._proxy = proxy
        self._crew = crew
        self._process = ProcessMetrics(context.reactor)

    async def numbers(self) -> Scrape:
        numbers, answered = await numbers_of(self._proxy, self._crew)
        servers = Servers()
        await in_slices(self._reactor, iter(numbers.servers), servers.look)
        return Scrape(servers.in_numbers(numbers), frozenset(answered))

    def more(self, scrape: Scrape) -> Iterator[MetricSource]:
        yield "proxy", partial(self._workers, scrape.workers)
        yield "loop", self._loops

    async def process(self, scrape: Scrape) -> Iterable[AnyFamily]:
        own = await self._process.collect()
        # Another one would not answer in time either.
        told = await self._crew.processes(scrape.workers)
        return of_processes(
            [(SUPERVISOR, own), *((str(number + 1), told[number]) for number in sorted(told))]
        )

    def _workers(self, answered: frozenset[int]) -> Iterator[Family]:
        slots = self._proxy.slots
        yield BY_NAME["evproxy_worker_up"].of_each(
            ((str(slot.number + 1),), slot.number in answered) for slot in slots
        )
        yield BY_NAME["evproxy_worker_restarts_total"].of_each(
            ((str(slot.number + 1),), slot.replacement.restarts) for slot in slots
        )

    def _loops(self) -> Iterator[Family]:
        loops = [(SUPERVISOR, self._proxy.loop_status())]
        loops += [(str(worker + 1), last.status.loop) for worker, last in self._crew.totals.each()]
        return of_processes((name, loop_metrics(loop)) for name, loop in loops if loop is not None)


def metrics_of_workers(context: Context, proxy: Whole, crew: Crew) -> Operation:
    """The operation that answers the metrics of all workers of the supervisor `proxy`."""
    return Metrics(AllWorkers(context, proxy, crew)).operation
