"""
Reports a shortage to observers: once when it begins, and once when it is over.
"""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from evproxy.errors import Shortage
from evproxy.observers import PressureObserver

CALM = 10.0
"""A shortage is over when it has not occurred for this many seconds."""

MOST = 64
"""The most different shortages that are reported at a time; further ones are not reported."""


class Pressure:
    """
    The current shortages of one service, or of the health checks of one pool.

    :param clock: the time and the timers.
    :param observer: is notified.
    """

    def __init__(self, clock: IReactorTime, observer: PressureObserver) -> None:
        self._clock = clock
        self._observer = observer
        self._last_felt: dict[str, float] = {}
        self._timer: IDelayedCall | None = None

    def felt(self, shortage: Shortage) -> None:
        """`shortage` has just prevented an operation."""
        what, new = shortage.what, shortage.what not in self._last_felt
        if new and len(self._last_felt) >= MOST:
            return
        self._last_felt[what] = self._clock.seconds()
        if self._timer is None:
            self._timer = self._clock.callLater(CALM, self._end_old)
        if new:
            self._observer.pressure_began(what, shortage.remedy)

    def stop(self) -> None:
        """Cancel the timer and forget all shortages."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._last_felt.clear()

    def _end_old(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        over = [what for what, last in self._last_felt.items() if now - last >= CALM]
        for what in over:
            del self._last_felt[what]
        if self._last_felt:
            due = min(self._last_felt.values()) + CALM - now
            self._timer = self._clock.callLater(due, self._end_old)
        for what in over:
            self._observer.pressure_over(what)
