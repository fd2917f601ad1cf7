"""
Counts the clients that a listener refuses, and reports them at a bounded rate.
"""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from evproxy.observers import RefusalObserver
from evproxy.policy.refusal import Refusal

INTERVAL = 10.0
"""Seconds between two reports of one reason: the first refusal is reported at once."""


class Refusals:
    """
    The refusals of one listener.

    `totals` has the number of refusals by reason, from the beginning.

    :param clock: the timers.
    :param listener: the name of the listener; may be replaced at any time.
    :param observer: is notified, for each reason, of the first refusal and then every `INTERVAL`
        seconds of those since.
    """

    def __init__(self, clock: IReactorTime, listener: str, observer: RefusalObserver) -> None:
        self.totals: dict[Refusal, int] = {}
        self._clock = clock
        self.listener = listener
        self._observer = observer
        self._fresh: dict[Refusal, tuple[int, str]] = {}
        self._quiet: set[Refusal] = set()
        self._timer: IDelayedCall | None = None

    def count(self, reason: Refusal, peer: str) -> None:
        """The client at the host `peer` was refused."""
        self.totals[reason] = self.totals.get(reason, 0) + 1
        if reason not in self._quiet:
            self._quiet.add(reason)
            self._observer.clients_refused(self.listener, reason.value, 1, peer)
            if self._timer is None:
                self._timer = self._clock.callLater(INTERVAL, self._report)
        else:
            self._fresh[reason] = (self._fresh.get(reason, (0, ""))[0] + 1, peer)

    def _report(self) -> None:
        fresh, self._fresh = self._fresh, {}
        self._quiet = set(fresh)
        self._timer = self._clock.callLater(INTERVAL, self._report) if fresh else None
        for reason, (count, peer) in fresh.items():
            self._observer.clients_refused(self.listener, reason.value, count, peer)

    def close(self) -> None:
        """The service has stopped: report what is left, and cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            for reason, (count, peer) in self._fresh.items():
                self._observer.clients_refused(self.listener, reason.value, count, peer)
            self._fresh.clear()
            self._quiet.clear()
