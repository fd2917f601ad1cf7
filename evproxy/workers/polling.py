"""
The looks at all workers: whether their loops run, and what they count.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from evproxy.workers.slot import Slot

POLL_INTERVAL = 1.0
"""Seconds between two looks at workers."""

MEASURED_SESSIONS = 10_000
"""Beyond this many sessions, the pauses between two measurements grow in proportion."""

MEASURED_SERVERS = 500
"""Beyond this many servers, times workers, the pauses grow in proportion."""

_log = Logger()


class Polling:
    """
    Looks at workers, once each `POLL_INTERVAL`.

    :param reactor: the timers.
    :param slots: the places of the workers.
    :param measure: measures what they count, and returns the servers and sessions that there are;
        ``None``: nobody wants to know.
    """

    def __init__(
        self,
        reactor: Any,
        slots: Sequence[Slot],
        measure: Callable[[], Awaitable[tuple[int, int]]] | None,
    ) -> None:
        self._reactor = reactor
        self._slots = slots
        self._measure = measure
        self._timer: IDelayedCall | None = None
        self._measuring = False
        self._due = 0.0

    def start(self) -> None:
        """Look from now on."""
        self._timer = self._reactor.callLater(POLL_INTERVAL, self._look)

    def stop(self) -> None:
        """Look no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self.start()
        for slot in self._slots:
            if slot.serving is not None:
                slot.serving.look()
        due = not self._measuring and self._reactor.seconds() >= self._due
        if self._measure is not None and due:
            self._measuring = True
            measured = Deferred.fromCoroutine(self._measured(self._measure))
            measured.addErrback(lambda failure: _log.failure("Measuring failed", failure))

    async def _measured(self, measure: Callable[[], Awaitable[tuple[int, int]]]) -> None:
        try:
            servers, sessions = await measure()
        finally:
            self._measuring = False
        pause = max(sessions / MEASURED_SESSIONS, servers * len(self._slots) / MEASURED_SERVERS)
        # The next look is up to an interval late.
        self._due = self._reactor.seconds() + (pause - 1) * POLL_INTERVAL
