"""
A look at a proxy as JSON: its state, its listeners and pools, and chosen servers and sessions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from evproxy.admin.answers import encoded
from evproxy.admin.fields import shown
from evproxy.admin.live.chosen import ChosenServers, server_entry
from evproxy.admin.live.history import Sample
from evproxy.admin.live.question import Question
from evproxy.admin.live.walk import Seen
from evproxy.admin.pools import PoolShown
from evproxy.admin.servers import server_fields
from evproxy.admin.whole import CERTIFICATE, LISTENER
from evproxy.engine.slices import in_slices
from evproxy.service.status import Status
from evproxy.settings import PoolSettings
from evproxy.upstream.pool.status import ServerStatus

NO_RATES = (0.0, 0.0)


class Snapshot:
    """
    Makes the events of one look.

    :param reactor: Twisted's; servers and sessions are looked at in slices.
    :param sample: that of the interval.
    :param seen: what viewers see of the sessions.
    """

    def __init__(self, reactor: Any, sample: Sample, seen: Seen) -> None:
        self._reactor = reactor
        self._sample = sample
        self._seen = seen
        self._common = b""
        self._servers: dict[Question, ChosenServers] = {}

    async def show(
        self,
        version: str,
        status: Status,
        servers: Iterator[tuple[str, ServerStatus]],
        settings_of: Callable[[str], PoolSettings | None],
        questions: Collection[Question],
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Make what all viewers see, and choose the servers that each of the `questions` means.

        :param version: that of evproxy.
        :param status: that of the proxy, without servers and sessions.
        :param servers: every server, with the name of its pool.
        :param settings_of: returns the settings of a pool; ``None``: it is the program's own.
        :param more: further fields of the object.
        """
        chosen = self._servers = {question: ChosenServers(question) for question in questions}
        pools = {each.name: PoolShown(each.name, each.waiting) for each in status.pools}

        def look(item: tuple[str, ServerStatus]) -> None:
            pool, server = item
            # A reload may have taken the pool away meanwhile.
            if pool in pools:
                pools[pool].count(server)
                for each in chosen.values():
                    each.look(pool, server)

        await in_slices(self._reactor, servers, look)
        by_listener = self._seen.listeners
        self._common = encoded(
            {
                "version": version,
                "pid": os.getpid(),
                "state": status.state,
                "sessions_total": status.session_count,
                "max_sessions": status.max_sessions,
                "listeners": [
                    {**shown(LISTENER, each), "sessions": by_listener.get(each.name, 0)}
                    for each in status.listeners
                ],
                "pools": [
                    {**pool.shown(), **_about(settings_of(name))} for name, pool in pools.items()
                ],
                "certificates": [shown(CERTIFICATE, each) for each in status.certificates],
                **(more or {}),
            }
        )[1:-1]

    async def event(self, question: Question) -> bytes:
        """Return the event that answers `question`, which is one of those of `show`."""
        chosen, found, rates = self._servers[question], self._seen.found[question], self._seen.rates
        fields = server_fields(self._reactor.seconds())

        def entry(item: tuple[str, ServerStatus]) -> bytes:
            pool, server = item
            return server_entry(fields, pool, server, *rates.get((pool, server.name), NO_RATES))

        servers = await in_slices(self._reactor, iter(chosen.servers), entry)
        return (
            b'{%b,"sample":%b,"servers":[%b],"servers_matching":%d,"sessions":[%b],"matching":%d}'
            % (
                self._common,
                self._sample.text.encode(),
                b",".join(servers),
                chosen.matching,
                b",".join(text for _, _, text in found.entries),
                found.matching,
            )
        )


def _about(settings: PoolSettings | None) -> dict[str, str]:
    """How a pool balances, and what it checks, in a few words; empty: nothing."""
    if settings is None:
        return {"balance": "", "checks": ""}
    check = settings.health_check
    checks = "" if check is None else f"{check.kind} every {check.interval:g} s"
    return {"balance": settings.balance, "checks": checks}
