"""
A balancer of your own: fill the first server, then the second, and so on.

So few servers do the work, and you can switch off the last ones of the list at night.

    python examples/own_balancer.py tcp:8080 127.0.0.1:8001 127.0.0.1:8002

Each server takes at most 100 sessions here.  A balancer only says which order it prefers; the
pool skips servers that are down or full.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from evproxy import Candidate, ConnectionInfo, Pool, ProxyService, UpstreamServer


class FillFirst:
    """An `evproxy.Balancer`."""

    def __init__(self) -> None:
        self._servers: Sequence[Candidate] = ()

    def update(self, servers: Sequence[Candidate]) -> None:
        """Called after the servers or their weights have changed."""
        self._servers = sorted(servers, key=lambda server: server.spec.name)

    def candidates(self, info: ConnectionInfo) -> Iterator[Candidate]:
        """Called for each new session; the session takes the next candidate only if one fails."""
        return (server for server in self._servers if server.weight > 0)


def main(reactor: Any, listen: str, *servers: str) -> Deferred[None]:
    pool = Pool(
        reactor,
        [UpstreamServer(server, max_sessions=100) for server in servers],
        balance=FillFirst(),
    )
    proxy = ProxyService(reactor, [listen], pool=pool)
    proxy.startService()
    reactor.addSystemEventTrigger("before", "shutdown", proxy.stopService)
    return Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
