"""
The watchdog of a loop, as a Twisted service for any process.
"""

from __future__ import annotations

from math import inf
from time import monotonic
from typing import Any

from twisted.application.service import Service
from twisted.logger import Logger

from evproxy.engine.loop import SocketEngine
from evproxy.engine.turns import Turns
from evproxy.errors import SettingsError
from evproxy.hub import hub_of
from evproxy.observe.loop_log import LoopLog
from evproxy.observe.watchdog.garbage import Collections
from evproxy.observe.watchdog.judge import Judge, Verdict
from evproxy.observe.watchdog.places import Places
from evproxy.observe.watchdog.sampler import Sampler
from evproxy.observe.watchdog.status import LoopStatus
from evproxy.observe.watchdog.waits import TimedEngine, Wait, wait_of
from evproxy.observers import LoopObserver

THRESHOLD = 0.1
"""Seconds for which a call may hold the loop: asyncio's and HAProxy's threshold, too."""

LEAST_THRESHOLD = 0.01
"""The smallest threshold, in seconds: the watchdog takes a sample twice in that time."""


_log = Logger()


class Watchdog(Service):
    """
    Times each turn of a reactor's loop, and reports what holds the loop, while it holds it.

    In a ``.tac`` file: ``Watchdog(reactor).setServiceParent(application)``.

    :param reactor: Twisted's; it runs in the thread that starts the service.
    :param threshold: seconds from which on a hold is reported, at least 0.01.
    :param observer: is notified of holds; by default, they are logged with ``twisted.logger``.
    :raises SettingsError: if `threshold` is too small.
    """

    name = "watchdog"

    def __init__(
        self, reactor: Any, threshold: float = THRESHOLD, observer: LoopObserver | None = None
    ) -> None:
        if not threshold >= LEAST_THRESHOLD or threshold == inf:
            raise SettingsError(
                f"threshold: expected a number of seconds from {LEAST_THRESHOLD}, got {threshold!r}"
            )
        self._reactor = reactor
        self.threshold = threshold
        self._hub = hub_of(LoopLog() if observer is None else observer)
        self.turns = Turns()
        self._places = Places()
        self._collections = Collections()
        self._engines: list[TimedEngine] = []
        self._waits: list[Wait] = []
        self._sampler: Sampler | None = None
        self._lasting: dict[tuple[object, ...], Verdict] = {}

    @property
    def last_turn(self) -> float:
        """
        The monotonic time at which the loop was last seen at work, or ready for it.

        That is when the turn in progress began; while the loop waits for events, it is now.
        """
        return min(self.turns.began, monotonic())

    def time_engine(self, engine: SocketEngine) -> None:
        """Also time the waits of `engine`; call this before the service starts."""
        self._engines.append(TimedEngine(engine, self.turns))

    def startService(self) -> None:
        """Watch the loop as soon as it runs."""
        super().startService()
        self._reactor.callWhenRunning(self._begin)

    def stopService(self) -> None:
        """Stop watching, and leave the reactor as it was."""
        super().stopService()
        if self._sampler is None:
            return
        for wait in self._waits:
            wait.restore()
        self._sampler.stop()
        self._collections.stop()
        self.turns.end()
        self._waits, self._sampler = [], None

    def _begin(self) -> None:
        if not self.running or self._sampler is not None:
            return
        judge = Judge(self.threshold)
        self._lasting = {}
        sampler = Sampler(self._reactor, self.turns, self._collections, judge, self._found)
        try:
            sampler.start()
        except RuntimeError as error:
            _log.warn("the loop has no watchdog: {error}", error=error)
            return
        self._sampler = sampler
        self._collections.start()
        self.turns.begin()
        self._waits = [wait_of(self._reactor, self.turns, self.threshold / 2), *self._engines]
        for wait in self._waits:
            wait.time()

    def status(self) -> LoopStatus:
        """Return a snapshot of the loop; call this in the loop's thread."""
        turns, collections, sampler = self.turns, self._collections, self._sampler
        return LoopStatus(
            threshold=self.threshold,
            since_last_turn=max(0.0, monotonic() - self.last_turn),
            turns=turns.count,
            turn_seconds=turns.seconds,
            buckets=turns.buckets(),
            longest_turn=turns.longest,
            recent_longest_turn=0.0 if sampler is None else sampler.recent_longest_turn,
            collections=collections.count,
            collection_seconds=collections.seconds,
            longest_collection=collections.longest,
            starved_seconds=0.0 if sampler is None else sampler.starved_seconds,
            places=self._places.all,
        )

    def _found(self, verdict: Verdict) -> None:
        """Report `verdict`, if its place is new; called in the sampler's thread."""
        key, report = verdict.key, verdict.report
        begun = self._lasting.pop(key, None)
        if begun is not None and report.over:
            if self._places.lasted(key, report.seconds - begun.report.seconds, report):
                self._hub.loop_released(report)
            return
        if self._places.found(key, report, monotonic()):
            self._hub.loop_held(report)
        if not report.over:
            self._lasting[key] = verdict
