"""
The numbers of a worker, which it takes for the supervisor, and sends in parts.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater

from evproxy.admin.access import metrics_can_be_read
from evproxy.admin.contract import Administered
from evproxy.admin.measure import PoolServerStatus, measure
from evproxy.engine.slices import SLICE, slices
from evproxy.observe.metrics.families import Numbers
from evproxy.observe.metrics.family import Family
from evproxy.workers.messages import Measured

if TYPE_CHECKING:
    from evproxy.admin.process_metrics import ProcessMetrics


class Measuring:
    """
    Takes the numbers of a worker.

    :param reactor: Twisted's.
    :param tell: sends a message to the supervisor.
    """

    def __init__(self, reactor: Any, tell: Callable[[object], None]) -> None:
        self._reactor = reactor
        self._tell = tell
        self._process: ProcessMetrics | None = None
        self._version = version("evproxy")

    def begin(self, proxy: Administered) -> None:
        """Load now what `process` will need."""
        if proxy.tally is not None and proxy.settings.admin.metrics and metrics_can_be_read():
            self._of_process()

    async def measure(self, proxy: Administered, number: int) -> Numbers:
        """Return the numbers of `proxy`; its servers go before, as the measurement `number`."""
        part: list[PoolServerStatus] = []

        def send() -> None:
            self._tell(Measured(number, tuple(part)))
            part.clear()

        def look(item: PoolServerStatus) -> None:
            part.append(item)
            if len(part) == SLICE:
                send()

        numbers = await measure(self._reactor, proxy, self._version, look)
        if part:
            send()
        moved = [(key, up, down) for key, (up, down) in numbers.live.server_bytes.items()]
        for more in slices(moved):
            self._tell(Measured(number, bytes=more))
            await deferLater(self._reactor, 0)
        status = numbers.status
        if status.loop is not None:
            status = evolve(status, loop=evolve(status.loop, places=()))
        return evolve(
            numbers,
            status=status,
            tally=numbers.tally.events(),
            live=evolve(numbers.live, server_bytes={}),
        )

    def process(self, proxy: Administered) -> Deferred[tuple[Family, ...]]:
        """Return the metric families of this process; none if `proxy` has no metrics."""
        if proxy.tally is None:
            return succeed(())
        return self._of_process().collect()

    def _of_process(self) -> ProcessMetrics:
        if self._process is None:
            # It is an extra, and takes a while to load.
            from evproxy.admin.process_metrics import ProcessMetrics

            self._process = ProcessMetrics(self._reactor)
        return self._process
