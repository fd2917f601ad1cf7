"""
The walks of a worker over its sessions, which it does for the supervisor, and tells in parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import deferLater

from evproxy.admin.contract import Administered
from evproxy.admin.live.interval import Interval
from evproxy.admin.live.walk import Seen, Walker
from evproxy.engine.slices import slices
from evproxy.errors import SettingsError
from evproxy.workers.messages import Walk, Walked


class Walking:
    """
    Looks at the sessions of a worker.

    :param reactor: Twisted's.
    :param tell: sends a message to the supervisor.
    """

    def __init__(self, reactor: Any, tell: Callable[[object], None]) -> None:
        self._reactor = reactor
        self._tell = tell
        self._walker: Walker | None = None
        self._lock = DeferredLock()

    def begin(self, proxy: Administered) -> None:
        """Count the traffic of `proxy` from now on, if it has an admin interface."""
        if proxy.tally is not None:
            self._walker = Walker(self._reactor, proxy)

    def walk(self, wanted: Walk) -> Deferred[Interval]:
        """Walk, after the walks that were asked for before; the parts go before the answer."""
        return self._lock.run(lambda: Deferred.fromCoroutine(self._walk(wanted)))

    async def _walk(self, wanted: Walk) -> Interval:
        if self._walker is None:
            raise SettingsError("the worker has no admin interface to walk for")
        interval, seen = await self._walker.walk(wanted.questions)
        if wanted.questions:
            for part in _parts(wanted, seen):
                self._tell(part)
                await deferLater(self._reactor, 0)
        return interval


def _parts(wanted: Walk, seen: Seen) -> Iterator[Walked]:
    number = wanted.number
    for listeners in slices(seen.listeners.items()):
        yield Walked(number, listeners=listeners)
    for rates in slices(seen.rates.items()):
        yield Walked(number, rates=rates)
    for place, question in enumerate(wanted.questions):
        found = seen.found[question]
        yield Walked(number, question=place, matching=found.matching)
        for entries in slices(found.entries):
            yield Walked(number, question=place, entries=entries)
