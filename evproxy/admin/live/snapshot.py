"""
A look at the proxy as JSON: its state, its listeners and pools, and chosen servers and sessions.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from evproxy.admin.answers import encoded
from evproxy.admin.contract import Administered
from evproxy.admin.fields import shown
from evproxy.admin.live.history import Sample
from evproxy.admin.live.question import Chosen, Seen
from evproxy.admin.servers import STATES, server_fields
from evproxy.admin.sessions import SESSION
from evproxy.admin.slices import in_slices
from evproxy.admin.whole import CERTIFICATE, LISTENER
from evproxy.model import SessionStatus
from evproxy.settings import PoolSettings
from evproxy.upstream.pool.running_pool import RunningPool
from evproxy.upstream.pool.status import ServerStatus


class Snapshot:
    """
    Makes the events of one look at a proxy.

    :param reactor: the time and the timers.
    :param proxy: the proxy.
    """

    def __init__(self, reactor: Any, proxy: Administered) -> None:
        self._reactor = reactor
        self._proxy = proxy
        self._version = version("evproxy")
        self.begin()

    def begin(self) -> None:
        """A new look begins."""
        self._by_listener: Counter[str] = Counter()
        self._rates: dict[tuple[str, str], tuple[float, float]] = {}

    def count(self, session: SessionStatus, up: float, down: float) -> None:
        """A session passes by, which moves `up` and `down` bytes a second."""
        self._by_listener[session.listener] += 1
        if up or down:
            place = session.pool, session.upstream
            more_up, more_down = self._rates.get(place, (0.0, 0.0))
            self._rates[place] = more_up + up, more_down + down

    async def common(self, chosen: Iterable[Chosen]) -> bytes:
        """
        Return what all viewers see: a part of a JSON object.

        Shows each of `chosen` every server on the way.
        """
        viewers = tuple(chosen)
        overview = self._proxy.overview()
        pools = []
        for each in overview.pools:
            pool: Any = self._proxy.pools.get(each.name)
            own = isinstance(pool, RunningPool)
            states, sessions = await self._servers(pool, viewers) if own else (Counter(), 0)
            pools.append(
                {
                    "name": each.name,
                    "servers": dict(states),
                    "sessions": sessions,
                    "waiting": each.waiting,
                    "balance": pool.settings.balance if own else "",
                    "checks": _checks(pool.settings) if own else "",
                }
            )
        listeners = [
            {**shown(LISTENER, each), "sessions": self._by_listener[each.name]}
            for each in overview.listeners
        ]
        return encoded(
            {
                "version": self._version,
                "pid": os.getpid(),
                "state": overview.state,
                "sessions_total": overview.session_count,
                "max_sessions": overview.max_sessions,
                "listeners": listeners,
                "pools": pools,
                "certificates": [shown(CERTIFICATE, each) for each in overview.certificates],
            }
        )[1:-1]

    async def _servers(
        self, pool: RunningPool, viewers: tuple[Chosen, ...]
    ) -> tuple[Counter[str], int]:
        """Show each viewer the servers of `pool`; return their states, and their sessions."""
        states: Counter[str] = Counter(dict.fromkeys(STATES, 0))

        def look(server: ServerStatus) -> int:
            states[server.state] += 1
            for viewer in viewers:
                entry = (pool.name, server)
                viewer.server(pool.name, server.name, server.state, server.why, entry)
            return server.sessions

        return states, sum(await in_slices(self._reactor, pool.each_server(), look))

    async def event(self, sample: Sample, common: bytes, chosen: Chosen) -> bytes:
        """Return the event for the viewers that see `chosen`."""
        fields = server_fields(self._reactor.seconds())

        def server(entry: tuple[str, ServerStatus]) -> bytes:
            pool, status = entry
            up, down = self._rates.get((pool, status.name), (0.0, 0.0))
            return encoded({"pool": pool, **shown(fields, status), **_rates(up, down)})

        def session(seen: Seen) -> bytes:
            status, up, down = seen
            return encoded({**shown(SESSION, status), **_rates(up, down)})

        servers = await in_slices(self._reactor, iter(chosen.servers), server)
        sessions = await in_slices(self._reactor, iter(chosen.sessions), session)
        return (
            b'{%b,"sample":%b,"servers":[%b],"servers_matching":%d,"sessions":[%b],"matching":%d}'
            % (
                common,
                sample.text.encode(),
                b",".join(servers),
                chosen.servers_matching,
                b",".join(sessions),
                chosen.matching,
            )
        )


def _rates(up: float, down: float) -> dict[str, float]:
    return {"rate_to_upstream": round(up, 1), "rate_to_downstream": round(down, 1)}


def _checks(settings: PoolSettings) -> str:
    """What is checked, in a few words; empty: nothing is."""
    check = settings.health_check
    return "" if check is None else f"{check.kind} every {check.interval:g} s"
