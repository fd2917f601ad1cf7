"""
The sums of what the workers count, with what those had counted that have died.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, DeferredLock

from evproxy.engine.slices import in_slices
from evproxy.observe.metrics.families import Numbers
from evproxy.observe.metrics.live import ServerKey
from evproxy.upstream.pool.status import ServerStatus
from evproxy.workers.gone import Gone
from evproxy.workers.server_changes import ServerChanges
from evproxy.workers.slot import Slot
from evproxy.workers.sums import (
    add_numbers,
    add_servers,
    nothing,
    server_without_counts,
    without_counts,
)


@frozen(kw_only=True)
class WorkerStatus:
    """
    A snapshot of a worker.

    `number`: from 1 on.  `pid`: of its process; ``None``: there is none for now.  `restarts`: how
    often the process was replaced.  `sessions` is the number of its sessions, `max_sessions` their
    bound.
    """

    number: int
    pid: int | None
    restarts: int
    sessions: int
    max_sessions: int


class Totals:
    """
    What the workers count.

    :param reactor: Twisted's; servers are summed up in slices.
    :param workers: how many there are.
    :param checks: returns how many checks of a server of a pool have passed, and failed.

    `changes`: those of servers.
    """

    def __init__(
        self,
        reactor: Any,
        workers: int,
        checks: Callable[[str, str], tuple[int, int]] = lambda pool, name: (0, 0),
    ) -> None:
        self._reactor = reactor
        self._checks = checks
        self._version = version("evproxy")
        self._last: list[Numbers | None] = [None] * workers
        # The last numbers of workers that have died: they show the whole if there is no other.
        self._before: dict[int, Numbers] = {}
        self._gone = Gone()
        self.changes = ServerChanges(workers)
        self._died: deque[Numbers] = deque()
        # How often a worker has told its numbers, or died; and the last sum, with that of its time.
        self._news = 0
        self._sum: tuple[int, Numbers] | None = None
        self._lock = DeferredLock()

    def told(self, worker: int, numbers: Numbers) -> None:
        """These are the numbers of `worker`, with all of its servers."""
        self._last[worker] = numbers
        self._news += 1

    def died(self, worker: int) -> None:
        """The process of `worker` has ended: keep what it had counted."""
        self.changes.died(worker)
        last, self._last[worker] = self._last[worker], None
        self._news += 1
        if last is not None:
            self._died.append(last)
            self._before[worker] = last

    def settle(self) -> Deferred[None]:
        """Add up what workers have left that have died."""
        return self._lock.run(lambda: Deferred.fromCoroutine(self._add_the_dead()))

    def each(self) -> Iterator[tuple[int, Numbers]]:
        """Yield the number of each worker that lives, from 0 on, and its last numbers."""
        for worker, last in enumerate(self._last):
            if last is not None:
                yield worker, last

    def whole(self) -> Deferred[Numbers]:
        """
        Return the sums, with every server.

        Sums are made one after the other, each in slices.
        """
        return self._lock.run(lambda: Deferred.fromCoroutine(self._whole()))

    def known(self) -> Deferred[Numbers]:
        """Return the last sums; new ones if a worker has told its numbers since, or died."""
        return self._lock.run(lambda: Deferred.fromCoroutine(self._known()))

    async def _known(self) -> Numbers:
        if self._sum is not None and self._sum[0] == self._news:
            return self._sum[1]
        return await self._whole()

    async def _whole(self) -> Numbers:
        news = self._news
        found = await self._add_up()
        self._sum = news, found
        return found

    async def _add_up(self) -> Numbers:
        await self._add_the_dead()
        parts = [last for _, last in self.each()]
        of_server: Callable[[ServerStatus], ServerStatus] = _unchanged
        if not parts:
            parts = [without_counts(each) for each in self._before.values()]
            of_server = server_without_counts
        if not parts:
            return nothing(self._version)
        numbers = self._gone.beside(add_numbers(parts))
        numbers.tally.changes = self.changes.counts.copy()
        found: dict[ServerKey, ServerStatus] = {}

        def add(item: tuple[str, ServerStatus]) -> None:
            server = of_server(item[1])
            key = item[0], server.name
            known = found.get(key)
            found[key] = server if known is None else add_servers(known, server)

        def add_bytes(item: tuple[ServerKey, Sequence[int]]) -> None:
            numbers.live.include_server(item[0], *item[1])

        for part in parts:
            await in_slices(self._reactor, iter(part.servers), add)
            await in_slices(self._reactor, iter(part.live.server_bytes.items()), add_bytes)
        servers = await in_slices(self._reactor, iter(found.items()), self._with_gone)
        await in_slices(self._reactor, self._gone.forget(found), lambda _: None)
        return evolve(numbers, servers=servers)

    def workers(self, slots: Sequence[Slot]) -> tuple[WorkerStatus, ...]:
        """A snapshot of each worker, as of the last look."""
        return tuple(
            WorkerStatus(
                number=slot.number + 1,
                pid=None if slot.process is None else slot.process.pid,
                restarts=slot.replacement.restarts,
                sessions=0 if last is None else last.status.session_count,
                max_sessions=0 if last is None else last.status.max_sessions,
            )
            for slot, last in zip(slots, self._last, strict=True)
        )

    async def _add_the_dead(self) -> None:
        while self._died:
            numbers = self._died.popleft()
            self._gone.add(numbers)

            def add(item: tuple[str, ServerStatus], numbers: Numbers = numbers) -> None:
                self._gone.add_server((item[0], item[1].name), item[1], numbers)

            await in_slices(self._reactor, iter(numbers.servers), add)

    def _with_gone(self, item: tuple[ServerKey, ServerStatus]) -> tuple[str, ServerStatus]:
        key, server = item
        passed, failed = self._checks(*key)
        counts = self._gone.of_server(key)
        more = {field: getattr(server, field) + number for field, number in counts.items()}
        return key[0], evolve(server, **more, checks_passed=passed, checks_failed=failed)


def _unchanged(server: ServerStatus) -> ServerStatus:
    return server
