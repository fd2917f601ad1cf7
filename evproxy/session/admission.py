"""
The admission of clients: counts the sessions, and pauses accepting at the bound.

Accepting pauses at the bound on sessions and when descriptors run out, and resumes when a session
ends.  Meanwhile, new clients wait in the kernel's accept queue.  A *period* of pressure begins with
the first pause, and ends after `CALM` seconds without a pause.  Observers are notified once for
each period.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall

from evproxy.errors import Shortage
from evproxy.hub import Hub
from evproxy.policy.shortages import shortage_of
from evproxy.pressure import Pressure
from evproxy.session.live import LiveSessions
from evproxy.session.session import Session

CALM = 1.0
"""Seconds without a pause that end a period of pressure."""

RETRY = 0.25
"""Seconds until accepting resumes after descriptors ran out, if no session ends before."""


class Pausable(Protocol):
    """A listening port that can leave its clients in the kernel's accept queue."""

    def pause_accepting(self) -> None: ...

    def resume_accepting(self) -> None: ...


class Admission:
    """
    The sessions of one service or factory, bounded.

    :param reactor: the time and the timers.
    :param limit: the most sessions at once; at least 1.
    :param hub: calls the observers of pauses.

    `limit` is the bound; `change_limit` changes it.
    """

    def __init__(self, reactor: Any, limit: int, hub: Hub) -> None:
        self.sessions = LiveSessions(reactor)
        self._clock = reactor
        self.limit = limit
        self._hub = hub
        self._ports: list[Pausable] = []
        self._paused = False
        self._in_period = False
        self._retry: IDelayedCall | None = None
        self._calm: IDelayedCall | None = None
        self._pressure = Pressure(reactor, hub)

    def watch(self, port: Pausable) -> None:
        """Pause and resume `port` with the other ports from now on."""
        self._ports.append(port)
        if self._paused:
            port.pause_accepting()

    def forget(self, port: Pausable) -> None:
        """`port` has stopped listening."""
        self._ports.remove(port)

    @property
    def paused(self) -> bool:
        """Whether accepting is paused."""
        return self._paused

    @property
    def full(self) -> bool:
        """Whether the bound is reached."""
        return len(self.sessions.by_id) >= self.limit

    def change_limit(self, limit: int) -> None:
        """Have the bound `limit` from now on; no running session ends."""
        self.limit = limit
        if self.full:
            self._pause_full()
        elif self._paused:
            self._resume()

    def opened(self, session: Session) -> None:
        """A session begins."""
        self.sessions.opened(session)
        if self.full:
            self._pause_full()

    def closed(self, session: Session) -> None:
        """A session is over."""
        self.sessions.closed(session)
        if self._paused and not self.full:
            self._resume()

    def exhausted(self, error: OSError) -> None:
        """An accept or a connect found no free descriptor."""
        shortage = shortage_of(error.errno)
        self._out_of(str(shortage) if shortage is not None else error.strerror or str(error))

    def short(self, shortage: Shortage) -> None:
        """
        A session could not be connected because of `shortage`.

        If accepting would lack the same, accepting pauses.  Otherwise, observers are only notified.
        """
        if shortage.everywhere:
            self._out_of(str(shortage))
        else:
            self._pressure.felt(shortage)

    def close(self) -> None:
        """The service has stopped: cancel the timers, and forget the pressure."""
        for timer in (self._retry, self._calm):
            if timer is not None:
                timer.cancel()
        self._retry = self._calm = None
        self._paused = self._in_period = False
        self._pressure.stop()

    def _pause_full(self) -> None:
        self._pause(f"{self.limit} sessions, as many as are allowed")

    def _out_of(self, why: str) -> None:
        self._pause(why)
        if self._retry is None:
            self._retry = self._clock.callLater(RETRY, self._try_again)

    def _pause(self, why: str) -> None:
        if self._calm is not None:
            self._calm.cancel()
            self._calm = None
        if not self._paused:
            self._paused = True
            for port in self._ports:
                port.pause_accepting()
        if not self._in_period:
            self._in_period = True
            self._hub.accepting_paused(why)

    def _try_again(self) -> None:
        self._retry = None
        if self._paused and not self.full:
            self._resume()

    def _resume(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._paused = False
        self._calm = self._clock.callLater(CALM, self._calmed)
        try:
            for port in self._ports:
                port.resume_accepting()
        except OSError as error:
            # Watching a port can need a descriptor, too.
            self.exhausted(error)

    def _calmed(self) -> None:
        self._calm = None
        self._in_period = False
        self._hub.accepting_resumed()
