"""What a pool tells its observer: each change of a server, and each period of trouble once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from evproxy.errors import Shortage
from evproxy.interfaces import DiscoveryObserver, PoolObserver
from evproxy.pressure import Pressure
from evproxy.upstream.pool.server import PoolServer
from evproxy.upstream.reasons import one_line

_log = Logger()

_MOST_FAILURES = 16
"""
Different failures of discovery that are told until it works again, and different things
that are told to be wrong with one set of servers.
"""

_QUIET = 10.0
"""Seconds without a session turned away that end a period in which every server is full."""


class News:
    """
    Tells `observer`, if there is one, what happens to a pool.

    :param reactor: tells the time.
    :param pool: the name of the pool.
    """

    def __init__(self, reactor: IReactorTime, pool: str, observer: PoolObserver | None) -> None:
        self.observer = observer
        self._reactor = reactor
        self._pool = pool
        self._failures: set[str] = set()
        self._problems: frozenset[str] = frozenset()
        self._overflowed = -inf
        self._pressure = Pressure(reactor, lambda: [self.observer])

    def server_changed(self, server: PoolServer, state: str, why: str) -> None:
        """`server` is in `state` now."""
        self._tell(lambda observer: observer.server_changed(self._pool, server.name, state, why))

    def exhausted(self, why: str) -> None:
        """The pool cannot serve sessions."""
        self._tell(lambda observer: observer.pool_exhausted(self._pool, why))

    def overflowed(self, why: str) -> None:
        """A session was turned away from a full queue; told once for each period."""
        now, before = self._reactor.seconds(), self._overflowed
        self._overflowed = now
        if now - before > _QUIET:
            self.exhausted(why)

    def checks_short(self, shortage: Shortage) -> None:
        """A health check could not be made because of `shortage`."""
        what = f"the health checks of {self._pool} tell nothing: {shortage.what}"
        self._pressure.felt(Shortage(what, shortage.remedy))

    def stop(self) -> None:
        """The pool has stopped: leave no timer."""
        self._pressure.stop()

    def discovery_failed(self, why: str) -> None:
        """A look-up failed; told once for each of the first reasons until one succeeds."""
        reason = one_line(why)
        if reason not in self._failures and len(self._failures) < _MOST_FAILURES:
            self._failures.add(reason)
            self._tell(lambda observer: observer.discovery_failed(self._pool, reason))

    def discovered(self, problems: Sequence[str]) -> None:
        """
        The pool has the servers that a look-up found; `problems`: what is wrong with them.

        Each is told once while it lasts.  The end of failures is told, and so is that of
        all problems; those that outlast a failure are told anew.
        """
        reasons = dict.fromkeys(map(one_line, problems))
        if self._failures or (self._problems and not reasons):
            self._failures.clear()
            self._problems = frozenset()
            self._tell(lambda observer: observer.discovery_recovered(self._pool))
        fresh = [reason for reason in reasons if reason not in self._problems]
        self._problems = frozenset(reasons)
        for reason in fresh[:_MOST_FAILURES]:
            self._incomplete(reason)
        if len(fresh) > _MOST_FAILURES:
            self._incomplete(f"{len(fresh) - _MOST_FAILURES} more things are wrong")

    def _incomplete(self, why: str) -> None:
        def tell(observer: PoolObserver) -> None:
            if isinstance(observer, DiscoveryObserver):
                observer.discovery_incomplete(self._pool, why)
            else:
                observer.discovery_failed(self._pool, why)

        self._tell(tell)

    def _tell(self, what: Callable[[PoolObserver], None]) -> None:
        """Tell the observer; that it breaks is of no concern to the pool."""
        if self.observer is not None:
            try:
                what(self.observer)
            except Exception:
                _log.failure("The observer of pool {pool} broke", pool=self._pool)
