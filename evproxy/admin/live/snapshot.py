"""
A look at the proxy as JSON: its state, its listeners and pools, and chosen servers and sessions.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable

from evproxy.admin.answers import encoded
from evproxy.admin.fields import shown
from evproxy.admin.live.history import Sample
from evproxy.admin.live.question import Chosen, Seen
from evproxy.admin.operations import Context
from evproxy.admin.pools import own_pools, shown_pool
from evproxy.admin.servers import server_fields
from evproxy.admin.sessions import SESSION
from evproxy.admin.whole import CERTIFICATE, LISTENER
from evproxy.engine.slices import in_slices
from evproxy.records import SessionStatus
from evproxy.settings import PoolSettings
from evproxy.upstream.pool.status import ServerStatus


class Snapshot:
    """
    Makes the events of one look at a proxy.

    :param context: the proxy, the reactor, and the version of evproxy.
    """

    def __init__(self, context: Context) -> None:
        self._reactor = context.reactor
        self._proxy = context.proxy
        self._version = context.version
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
        own = own_pools(self._proxy)
        pools = []
        for each in overview.pools:
            pool = own.get(each.name)

            def look(server: ServerStatus, name: str = each.name) -> None:
                for viewer in viewers:
                    viewer.server(name, server.name, server.state, server.why, (name, server))

            pools.append(
                {
                    **await shown_pool(self._reactor, each, pool, look),
                    "balance": "" if pool is None else pool.settings.balance,
                    "checks": "" if pool is None else _checks(pool.settings),
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
