"""
Ends many sessions: some in each turn of the reactor, or spread over a time.

Clients that reconnect after a reset then do not all come at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from evproxy.model import Ending, Side
from evproxy.session.live import RESET_BATCH, LiveSessions
from evproxy.session.session import Session

LOOKED_AT = 1024
"""How many sessions are looked at in one turn of the reactor: less than a millisecond's worth."""

_log = Logger()


class SpreadEnds:
    """
    Ends the sessions of single servers.

    :param reactor: the time and the timers.
    :param live: the sessions.
    """

    def __init__(self, reactor: Any, live: LiveSessions) -> None:
        self._reactor = reactor
        self._live = live
        self._calls: set[IDelayedCall] = set()
        self._finding: set[Deferred[int]] = set()

    def end(self, pool: str, server: str, over: float) -> Deferred[int]:
        """
        Reset the sessions that the server called `server` of `pool` has now.

        :param over: seconds within which they end, evenly, the oldest first; 0: at once.
        :return: fires with how many there are, before the first one ends.
        """
        found: list[int] = []
        counted: Deferred[int] = Deferred(self._finding.discard)
        self._finding.add(counted)

        def look(ids: Iterator[int]) -> None:
            looked_at = list(islice(ids, LOOKED_AT))
            found.extend(each for each in looked_at if self._is_on(each, pool, server))
            if len(looked_at) == LOOKED_AT:
                self._later(0, partial(look, ids))
                return
            self._finding.discard(counted)
            if not counted.called:
                counted.callback(len(found))
            started = self._reactor.seconds()
            self._end_some(found, 0, started, over, partial(self._is_on, pool=pool, server=server))

        look(iter(tuple(self._live.by_id)))
        return counted

    def stop(self) -> None:
        """The service has stopped: end no more sessions."""
        for call in self._calls:
            call.cancel()
        self._calls.clear()
        finding, self._finding = self._finding, set()
        for counted in finding:
            counted.callback(0)

    def _is_on(self, number: int, pool: str, server: str) -> bool:
        session = self._live.by_id.get(number)
        return (
            session is not None
            and session.server is not None
            and session.server.name == server
            and session.pool_name == pool
        )

    def _end_some(
        self, ids: Sequence[int], done: int, started: float, over: float, still_on: Any
    ) -> None:
        """End the sessions whose time has come; the first `done` of `ids` have ended."""
        count = len(ids)
        passed = self._reactor.seconds() - started
        due = count if passed >= over else int(count * passed / over) + 1
        until = min(due, done + RESET_BATCH, count)
        for number in ids[done:until]:
            if still_on(number):
                session: Session = self._live.by_id[number]
                with _log.failuresHandled("Could not end a session"):
                    session.end(Side.PROXY, Ending.REQUESTED)
        if until < count:
            wait = 0.0 if until < due else started + over * until / count - self._reactor.seconds()
            again = partial(self._end_some, ids, until, started, over, still_on)
            self._later(max(0.0, wait), again)

    def _later(self, seconds: float, work: Any) -> None:
        def run() -> None:
            self._calls.discard(call)
            work()

        call = self._reactor.callLater(seconds, run)
        self._calls.add(call)
