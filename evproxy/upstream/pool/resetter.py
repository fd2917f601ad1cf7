"""
Ends the sessions of servers that go down, in pools that do so (``on_down = "reset"``).

Some in each turn of the reactor, so that those of other servers are not held up.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from operator import length_hint

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from evproxy.interfaces import PoolSession
from evproxy.model import Ending, Phase, Side
from evproxy.upstream.pool.server import PoolServer

_log = Logger()

_BATCH = 32
"""Sessions ended in one turn of the reactor, where it could be all of them."""


class Resetter:
    """
    Resets the sessions that are in `PoolServer.held`.

    :param reactor: calls later.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._calls: set[IDelayedCall] = set()

    def changed(self, server: PoolServer) -> None:
        """`server` may have gone down, or be up again."""
        if not server.down:
            server.late.clear()
        if server.held and server.down and not server.found_down:
            self._reset(server, iter(list(server.held)))
        server.found_down = server.down

    def connected(self, server: PoolServer) -> None:
        """A session that still connected when `server` went down may have got through."""
        arrived = [late for late in server.late if late.phase is not Phase.CONNECTING]
        self._reset_soon(server, iter(arrived))

    def stop(self) -> None:
        """No timer is left; what was to be reset goes on."""
        for call in self._calls:
            call.cancel()
        self._calls.clear()

    def _reset(self, server: PoolServer, sessions: Iterator[PoolSession]) -> None:
        for session in islice(sessions, _BATCH):
            if not server.down or server.held is None:
                return
            if session not in server.held:
                continue
            # One that still connects may fail and go to another server.
            if session.phase is Phase.CONNECTING:
                server.late.add(session)
                continue
            server.late.discard(session)
            try:
                session.end(Side.PROXY, Ending.SERVER_DOWN)
            except Exception:
                _log.failure("Could not end a session of {server}", server=server.name)
        if length_hint(sessions):
            self._reset_soon(server, sessions)

    def _reset_soon(self, server: PoolServer, sessions: Iterator[PoolSession]) -> None:
        def run() -> None:
            self._calls.discard(call)
            self._reset(server, sessions)

        call = self._reactor.callLater(0, run)
        self._calls.add(call)
