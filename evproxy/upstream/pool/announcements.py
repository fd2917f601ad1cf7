"""The notifications of a pool to its observer: server changes, and each problem once."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from twisted.internet.interfaces import IReactorTime

from evproxy.errors import Shortage
from evproxy.hub import Hub
from evproxy.pressure import Pressure
from evproxy.upstream.pool.server import PoolServer
from evproxy.upstream.reasons import one_line

_MOST_FAILURES = 16
"""
The most different discovery failures that are reported until discovery works again, and the
most problems that are reported for one set of servers.
"""

_QUIET = 10.0
"""An overflow is over when no session has been rejected for this many seconds."""


class Announcements:
    """
    Notifies the observers of a pool of what happens to it.

    :param reactor: the time and the timers.
    :param pool: the name of the pool.
    :param hub: calls the observers.
    """

    def __init__(self, reactor: IReactorTime, pool: str, hub: Hub) -> None:
        self._hub = hub
        self._reactor = reactor
        self._pool = pool
        self._failures: set[str] = set()
        self._problems: frozenset[str] = frozenset()
        self._overflowed = -inf
        self._pressure = Pressure(reactor, hub)

    def server_changed(self, server: PoolServer, state: str, why: str) -> None:
        """`server` has entered `state`."""
        self._hub.server_changed(self._pool, server.name, state, why)

    def exhausted(self, why: str) -> None:
        """The pool cannot serve sessions."""
        self._hub.pool_exhausted(self._pool, why)

    def overflowed(self, why: str) -> None:
        """A session was rejected because the queue is full; reported once for each period."""
        now, before = self._reactor.seconds(), self._overflowed
        self._overflowed = now
        if now - before > _QUIET:
            self.exhausted(why)

    def check_prevented(self, shortage: Shortage) -> None:
        """A health check could not run because of `shortage`."""
        what = f"the health checks of {self._pool} cannot run: {shortage.what}"
        self._pressure.felt(Shortage(what, shortage.remedy))

    def short(self, shortage: Shortage) -> None:
        """A connect had to do without something because of `shortage`."""
        self._pressure.felt(shortage)

    def stop(self) -> None:
        """The pool has stopped: cancel the timers."""
        self._pressure.stop()

    def discovery_failed(self, why: str) -> None:
        """A look-up failed; each of the first few reasons is reported once until one succeeds."""
        # A discovery of a user's own may give anything.
        reason = one_line(str(why))
        if reason not in self._failures and len(self._failures) < _MOST_FAILURES:
            self._failures.add(reason)
            self._hub.discovery_failed(self._pool, reason)

    def discovered(self, problems: Sequence[str]) -> None:
        """
        The pool has the servers that a look-up found; `problems` says what is wrong with them.

        Each problem is reported once while it lasts.  The recovery is reported when a look-up
        succeeds after a failure, or when all problems are gone.  After a failure, the
        remaining problems are reported again.
        """
        reasons = dict.fromkeys(one_line(str(problem)) for problem in problems)
        if self._failures or (self._problems and not reasons):
            self._failures.clear()
            self._problems = frozenset()
            self._hub.discovery_recovered(self._pool)
        fresh = [reason for reason in reasons if reason not in self._problems]
        self._problems = frozenset(reasons)
        for reason in fresh[:_MOST_FAILURES]:
            self._hub.discovery_incomplete(self._pool, reason)
        if len(fresh) > _MOST_FAILURES:
            more = f"{len(fresh) - _MOST_FAILURES} more problems"
            self._hub.discovery_incomplete(self._pool, more)
