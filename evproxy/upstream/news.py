"""What a pool tells its observer: each change of a server, and each period of trouble once."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from evproxy.interfaces import PoolObserver
from evproxy.upstream.server import PoolServer

_log = Logger()

_MOST_FAILURES = 16
"""Different failures of discovery that are told until it works again."""

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
        self._overflowed = -inf

    def server_changed(self, server: PoolServer, state: str, why: str) -> None:
        """`server` is in `state` now."""
        self._tell(lambda observer: observer.server_changed(self._pool, server.name, state, why))

    def exhausted(self, why: str) -> None:
        """The pool cannot serve sessions."""
        self._tell(lambda observer: observer.pool_exhausted(self._pool, why))

    def overflowed(self, waiting: int) -> None:
        """A session was turned away, as `waiting` others wait; told once for each period."""
        now, before = self._reactor.seconds(), self._overflowed
        self._overflowed = now
        if now - before > _QUIET:
            self.exhausted(f"every server is full, and so is the queue ({waiting} waiting)")

    def discovery_failed(self, why: str) -> None:
        """A look-up failed; told once for each of the first reasons until one succeeds."""
        if why not in self._failures and len(self._failures) < _MOST_FAILURES:
            self._failures.add(why)
            self._tell(lambda observer: observer.discovery_failed(self._pool, why))

    def discovery_works(self) -> None:
        """A look-up succeeded; told if others had failed."""
        if self._failures:
            self._failures.clear()
            self._tell(lambda observer: observer.discovery_recovered(self._pool))

    def _tell(self, what: Callable[[PoolObserver], None]) -> None:
        """Tell the observer; that it breaks is of no concern to the pool."""
        if self.observer is not None:
            try:
                what(self.observer)
            except Exception:
                _log.failure("The observer of pool {pool} broke", pool=self._pool)
