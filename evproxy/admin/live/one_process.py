"""
The source of the feed that looks at the proxy in this process.
"""

from __future__ import annotations

from collections.abc import Collection

from evproxy.admin.live.interval import sample_of
from evproxy.admin.live.question import Question
from evproxy.admin.live.snapshot import Snapshot
from evproxy.admin.live.source import Look
from evproxy.admin.live.walk import Walker
from evproxy.admin.measure import servers_of
from evproxy.admin.operations import Context
from evproxy.admin.pools import own_pools
from evproxy.settings import PoolSettings


class OneProcess:
    """
    The `evproxy.admin.live.source.Source` of one process.

    :param context: the proxy, the reactor, and the version of evproxy.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._walker = Walker(context.reactor, context.proxy)

    @property
    def sessions(self) -> int:
        return len(self._context.proxy.admission.sessions)

    async def look(self, questions: Collection[Question]) -> Look:
        proxy = self._context.proxy
        interval, seen = await self._walker.walk(questions)
        sample = sample_of([interval], interval.until, interval.seconds)
        snapshot = Snapshot(self._context.reactor, sample, seen)
        if questions:
            own = own_pools(proxy)

            def settings_of(pool: str) -> PoolSettings | None:
                return own[pool].settings if pool in own else None

            servers = servers_of(proxy)
            version, status = self._context.version, proxy.overview()
            await snapshot.show(version, status, servers, settings_of, questions)
        return Look(sample, snapshot.event)
