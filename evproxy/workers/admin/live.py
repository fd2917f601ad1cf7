"""
The live view of all workers: each looks at its sessions, and the supervisor merges what they see.
"""

from __future__ import annotations

from collections.abc import Collection

from attrs import evolve

from evproxy.admin.live.interval import sample_of
from evproxy.admin.live.question import Question
from evproxy.admin.live.snapshot import Snapshot
from evproxy.admin.live.source import Look
from evproxy.admin.operations import Context
from evproxy.workers.admin.crew import Crew
from evproxy.workers.admin.whole import Whole, known_numbers, shown_workers
from evproxy.workers.walks import merged

SHORTEST = 1e-3
"""The least seconds that an interval counts as, whatever the clock says."""


class LiveWorkers:
    """
    The `evproxy.admin.live.source.Source` of all workers.

    Pools and servers are those of the numbers that the workers have told last.

    :param context: the reactor, and the version of evproxy.
    :param proxy: the supervisor.
    :param crew: its workers.
    """

    def __init__(self, context: Context, proxy: Whole, crew: Crew) -> None:
        self._reactor = context.reactor
        self._version = context.version
        self._proxy = proxy
        self._crew = crew
        self._since = context.reactor.seconds()

    @property
    def sessions(self) -> int:
        processes = (slot.process for slot in self._proxy.slots)
        return max((each.sessions for each in processes if each is not None), default=0)

    async def look(self, questions: Collection[Question]) -> Look:
        now = self._reactor.seconds()
        seconds, self._since = max(now - self._since, SHORTEST), now
        told = await self._crew.walk(tuple(questions))
        sample = sample_of([interval for interval, _ in told.values()], now, seconds)
        seen = await merged(self._reactor, questions, [each for _, each in told.values()])
        snapshot = Snapshot(self._reactor, sample, seen)
        if questions:
            if not any(self._crew.totals.each()):
                await self._crew.look()
            numbers = await known_numbers(self._proxy, self._crew)
            pools = {each.name: each for each in self._proxy.settings.pools}
            await snapshot.show(
                self._version,
                evolve(numbers.status, session_count=sample.sessions),
                iter(numbers.servers),
                pools.get,
                questions,
                {"workers": shown_workers(self._proxy, self._crew, told)},
            )
        return Look(sample, snapshot.event)
