"""
Takes the numbers of one proxy, in slices: those of its servers, and those of its live sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from evproxy.admin.contract import Administered
from evproxy.admin.pools import own_pools
from evproxy.engine.slices import in_slices
from evproxy.observe.metrics.families import Numbers
from evproxy.observe.metrics.live import LiveTotals
from evproxy.observe.metrics.tally import Tally
from evproxy.upstream.pool.status import ServerStatus

SESSIONS_AT_ONCE = 256
"""How many live sessions are added up in one turn of the reactor: about half a millisecond's
worth."""

PoolServerStatus = tuple[str, ServerStatus]
"""The name of a pool, and one of its servers."""


async def measure(
    reactor: Any,
    proxy: Administered,
    version: str,
    look: Callable[[PoolServerStatus], object],
) -> Numbers:
    """
    Return the numbers of `proxy`, without its servers.

    :param version: that of evproxy.
    :param look: is called with each server on the way.
    """
    tally = Tally() if proxy.tally is None else proxy.tally
    tally.count()
    # Before the live sessions are added up, so that no session counts twice.
    listeners = {name: totals.copy() for name, totals in tally.listeners.items()}
    await in_slices(reactor, servers_of(proxy), look)
    live = LiveTotals()
    sessions = proxy.admission.sessions

    def add(number: int) -> None:
        session = sessions.by_id.get(number)
        if session is not None:
            live.add(session)

    await in_slices(reactor, iter(tuple(sessions.by_id)), add, size=SESSIONS_AT_ONCE)
    pipes = proxy.plane.pipes
    return Numbers(
        status=proxy.overview(),
        version=version,
        tally=tally,
        listeners=listeners,
        live=live,
        states={},
        servers=(),
        left_out=0,
        accepting_paused=proxy.admission.paused,
        log_lines_dropped=proxy.log_lines_dropped,
        pauses=proxy.plane.pauses,
        pipes=(pipes.in_use, pipes.kept, pipes.most),
    )


def servers_of(proxy: Administered) -> Iterator[PoolServerStatus]:
    """Yield the servers of every pool that is evproxy's."""
    for name, pool in own_pools(proxy).items():
        for server in pool.each_server():
            yield name, server
