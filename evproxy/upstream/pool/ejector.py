"""Passive health: ejects servers by what their sessions meet, and lets them back in."""

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

    :param reactor: tells the time and calls later.
    :param settings: how many failures eject, and for how long.
    :param servers: gives the servers of the pool.
    :param changed: called with a server that was ejected or let back in, and why.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        settings: Ejection,
        servers: Callable[[], Iterable[PoolServer]],
        changed: Callable[[PoolServer, str], None],
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._servers = servers
        self._changed = changed
        self._timers: dict[PoolServer, IDelayedCall] = {}
        self._stopped = False

    def connect_failed(self, server: PoolServer, reason: Failure) -> None:
        """A connect to `server` failed."""
        self._judge(server, server.ejection.connect_failed(), reason_of(reason))

    def connected(self, server: PoolServer) -> None:
        """A connect to `server` succeeded."""
        record = server.ejection
        # Nothing is to be forgiven most servers.
        if record.connect_failures or record.times:
            record.connected(self._reactor.seconds(), self._settings)

    def ended(self, server: PoolServer, reason: CloseReason, answered: bool) -> None:
        """A session ended; `answered`: `server` sent a byte in it."""
        if answered:
            record = server.ejection
            if record.early_resets or record.times:
                record.answered(self._reactor.seconds(), self._settings)
        elif reason.by is Side.UPSTREAM and reason.how is Ending.RESET:
            self._judge(server, server.ejection.reset_early(), "reset before any answer")

    def forget(self, server: PoolServer) -> None:
        """`server` has left the pool: end its ejection without a word."""
        timer = self._timers.pop(server, None)
        if timer is not None:
            timer.cancel()
            server.ejection.readmit(self._reactor.seconds(), self._settings)

    def start(self) -> None:
        """Eject again, after `stop`; a new one does so from the beginning."""
        self._stopped = False

    def stop(self) -> None:
        """End all ejections without a word, and begin none."""
        self._stopped = True
        for server in list(self._timers):
            self.forget(server)

    def _judge(self, server: PoolServer, failures: int, why: str) -> None:
        settings = self._settings
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
        server.ejection.readmit(self._reactor.seconds(), self._settings)
        self._changed(server, "the ejection is over")
