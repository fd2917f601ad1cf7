"""
Lines for sessions that are not over: at their start, and in intervals while they last.

There is no timer for each session.  One sweep passes over all live sessions once in each interval,
evenly, a few of them in each turn of the reactor.
"""

from __future__ import annotations

from math import ceil
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from evproxy.model import Phase
from evproxy.records import SessionStatus
from evproxy.session.live import LiveSessions

TICK = 0.1
"""Seconds between two steps of a sweep that is in time."""

AT_ONCE = 32
"""How many sessions get their line in one turn of the reactor: less than a millisecond's worth."""

_LOOKED_AT = 1024
"""How many sessions are looked at in one turn of the reactor, most of which may have ended."""

_log = Logger()


class LinesOfSessions(Protocol):
    """A log that takes lines of sessions that are not over."""

    def under_way(self, event: str, status: SessionStatus) -> None:
        """Write a line for `status`; `event` is ``start`` or ``interval``."""


class StartLines:
    """
    A `SessionConnectedObserver` that writes a line when a session has got its server.

    :param log: gets the lines.
    """

    def __init__(self, log: LinesOfSessions) -> None:
        self._log = log

    def session_connected(self, session: SessionStatus) -> None:
        self._log.under_way("start", session)


class IntervalLines:
    """
    Writes a line for each session in each interval, once the session has lasted for one interval.

    :param reactor: the time and the timers.
    :param sessions: the live sessions.
    """

    def __init__(self, reactor: Any, sessions: LiveSessions) -> None:
        self._reactor = reactor
        self._sessions = sessions
        self._log: LinesOfSessions | None = None
        self._interval = 0.0
        self._runs = False
        self._timer: IDelayedCall | None = None
        self._began = 0.0
        self._numbers: tuple[int, ...] = ()
        self._next = 0

    def write_to(self, log: LinesOfSessions | None, interval: float) -> None:
        """
        Write to `log` from now on; ``None``: write no lines.

        :param interval: seconds between two lines of one session, at least `TICK`; 0: no lines.
        """
        self._log = log if interval else None
        self._interval = max(interval, TICK)
        if self._runs:
            self.stop()
            self.start()

    def start(self) -> None:
        """Begin to sweep, unless it has begun."""
        if not self._runs:
            self._runs = True
            if self._log is not None:
                self._timer = self._reactor.callLater(self._interval, self._begin, self._log)

    def stop(self) -> None:
        """End the sweep; the timer is gone."""
        self._runs = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._numbers, self._next = (), 0

    def _begin(self, log: LinesOfSessions) -> None:
        self._began = self._reactor.seconds()
        self._numbers, self._next = tuple(self._sessions.by_id), 0
        self._step(log)

    def _step(self, log: LinesOfSessions) -> None:
        """Write the lines that are due by now, at most `AT_ONCE`; come back for the others."""
        now = self._reactor.seconds()
        elapsed = now - self._began
        # A step ahead, so that the pass ends within the interval.
        due = ceil(len(self._numbers) * min(1.0, (elapsed + TICK) / self._interval))
        end = min(due, self._next + _LOOKED_AT)
        by_id = self._sessions.by_id
        written = 0
        while self._next < end and written < AT_ONCE:
            session = by_id.get(self._numbers[self._next])
            self._next += 1
            if (
                session is not None
                and session.phase is Phase.RELAYING
                and now - session.started >= self._interval
            ):
                with _log.failuresHandled("Could not log a session that lasts"):
                    log.under_way("interval", session.status(now))
                written += 1
        if self._next >= len(self._numbers):
            wait = max(0.0, self._interval - elapsed)
            self._timer = self._reactor.callLater(wait, self._begin, log)
        else:
            late = self._next < due
            self._timer = self._reactor.callLater(0 if late else TICK, self._step, log)
