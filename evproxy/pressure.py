"""
What evproxy lacks, told once for each period in which it does, and once when that is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from evproxy.errors import Shortage
from evproxy.interfaces import PressureObserver

CALM = 10.0
"""Seconds without a shortage of one kind that end its period."""

MOST = 64
"""Different shortages that are told at a time; those beyond are not."""

_log = Logger()


class Pressure:
    """
    The periods of pressure of one service, or of the health checks of one pool.

    :param clock: tells the time and calls later.
    :param observers: gives who may hear of it; those that are no `PressureObserver` do not.
    """

    def __init__(self, clock: IReactorTime, observers: Callable[[], Iterable[object]]) -> None:
        self._clock = clock
        self._observers = observers
        self._felt: dict[str, float] = {}
        self._timer: IDelayedCall | None = None

    def felt(self, shortage: Shortage) -> None:
        """Something could not be done because of `shortage`."""
        what, new = shortage.what, shortage.what not in self._felt
        if new and len(self._felt) >= MOST:
            return
        self._felt[what] = self._clock.seconds()
        if self._timer is None:
            self._timer = self._clock.callLater(CALM, self._look)
        if new:
            self._tell(lambda observer: observer.pressure_began(what, shortage.remedy))

    def stop(self) -> None:
        """Leave no timer, and forget the pressure."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._felt.clear()

    def _look(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        over = [what for what, last in self._felt.items() if now - last >= CALM]
        for what in over:
            del self._felt[what]
        if self._felt:
            due = min(self._felt.values()) + CALM - now
            self._timer = self._clock.callLater(due, self._look)
        for what in over:
            self._tell(lambda observer, what=what: observer.pressure_over(what))  # type: ignore[misc]

    def _tell(self, what: Callable[[PressureObserver], None]) -> None:
        for observer in self._observers():
            if isinstance(observer, PressureObserver):
                try:
                    what(observer)
                except Exception:
                    _log.failure("An observer broke when it was told of pressure")
