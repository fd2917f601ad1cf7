"""Passive health: ejects servers after failed connects or early resets, and readmits them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from evproxy.model import CloseReason, Ending, Side
from evproxy.policy.health import may_eject
from evproxy.settings import Ejection
from evproxy.upstream.pool.server import PoolServer
from evproxy.upstream.reasons import reason_of


class Ejector:
    """
    Keeps the `EjectionRecord` of each server of a pool.

    :param reactor: the time and the timers.
    :param settings: how many failures cause an ejection, and how long it lasts; may be replaced
        at any time, and counts for the next failure.
    :param servers: returns the servers of the pool.
    :param changed: called with a server that was ejected or readmitted, and the reason.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        settings: Ejection,
        servers: Callable[[], Iterable[PoolServer]],
        changed: Callable[[PoolServer, str], None],
    ) -> None:
        self._reactor = reactor
        self.settings = settings
        self._servers = servers
        self._changed = changed
        self._timers: dict[PoolServer, IDelayedCall] = {}
        self._stopped = False

    def connect_failed(self, server: PoolServer, reason: Failure) -> None:
        """A connect to `server` failed."""
        self._count_failure(server, server.ejection.connect_failed(), reason_of(reason))

    def connected(self, server: PoolServer) -> None:
        """A connect to `server` succeeded."""
        record = server.ejection
        # Most servers have no failures, so this is skipped for most connects.
        if record.connect_failures or record.times:
            record.connected(self._reactor.seconds(), self.settings)

    def ended(self, server: PoolServer, reason: CloseReason, answered: bool) -> None:
        """A session ended; `answered` says whether `server` sent a byte."""
        if answered:
            record = server.ejection
            if record.early_resets or record.times:
                record.answered(self._reactor.seconds(), self.settings)
        elif reason.by is Side.UPSTREAM and reason.how is Ending.RESET:
            self._count_failure(server, server.ejection.reset_early(), "reset before any answer")

    def forget(self, server: PoolServer) -> None:
        """`server` has left the pool: end its ejection without a notification."""
        timer = self._timers.pop(server, None)
        if timer is not None:
            timer.cancel()
            server.ejection.readmit(self._reactor.seconds(), self.settings)

    def start(self) -> None:
        """Allow ejections again, after `stop`.  A new `Ejector` allows them from the beginning."""
        self._stopped = False

    def stop(self) -> None:
        """End all ejections without notifications, and begin no new ones."""
        self._stopped = True
        for server in list(self._timers):
            self.forget(server)

    def _count_failure(self, server: PoolServer, failures: int, why: str) -> None:
        settings = self.settings
        if failures < settings.failures or server in self._timers:
            return
        if self._stopped or server.leaving:
            return
        others = [each.usable for each in self._servers() if each is not server]
        out = others.count(False)
        if not may_eject(len(self._timers), out, len(others) + 1, settings.max_percent):
            return
        seconds = server.ejection.eject(self._reactor.seconds(), settings)
        server.ejections += 1
        self._timers[server] = self._reactor.callLater(seconds, self._readmit, server)
        server.ejection.why = f"{why} ({failures} of {settings.failures})"
        self._changed(server, server.ejection.why)

    def _readmit(self, server: PoolServer) -> None:
        del self._timers[server]
        server.ejection.readmit(self._reactor.seconds(), self.settings)
        self._changed(server, "the ejection is over")
