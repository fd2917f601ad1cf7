"""
Ends the sessions of servers that go down, in pools with ``on_down = "reset"``.

It ends a batch in each turn of the reactor, so that the sessions of other servers can proceed.
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
"""The most sessions that are ended in one turn of the reactor."""


class Resetter:
    """
    Resets the sessions in `PoolServer.held` when the server goes down.

    :param reactor: the timers.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._calls: set[IDelayedCall] = set()

    def changed(self, server: PoolServer) -> None:
        """The state of `server` may have changed to down, or to up."""
        if not server.down:
            server.connecting.clear()
        if server.held and server.down and not server.was_down:
            self._reset(server, iter(list(server.held)))
        server.was_down = server.down

    def connected(self, server: PoolServer) -> None:
        """A session that was connecting when `server` went down may have succeeded."""
        connected = [each for each in server.connecting if each.phase is not Phase.CONNECTING]
        self._reset_soon(server, iter(connected))

    def stop(self) -> None:
        """Cancel the timers; sessions that are not reset yet continue."""
        for call in self._calls:
            call.cancel()
        self._calls.clear()

    def _reset(self, server: PoolServer, sessions: Iterator[PoolSession]) -> None:
        for session in islice(sessions, _BATCH):
            if not server.down or server.held is None:
                return
            if session not in server.held:
                continue
            # A session that is still connecting may fail over to another server.
            if session.phase is Phase.CONNECTING:
                server.connecting.add(session)
                continue
            server.connecting.discard(session)
            with _log.failuresHandled("Could not end a session of {server}", server=server.name):
                session.end(Side.PROXY, Ending.SERVER_DOWN)
        if length_hint(sessions):
            self._reset_soon(server, sessions)

    def _reset_soon(self, server: PoolServer, sessions: Iterator[PoolSession]) -> None:
        def run() -> None:
            self._calls.discard(call)
            self._reset(server, sessions)

        call = self._reactor.callLater(0, run)
        self._calls.add(call)
