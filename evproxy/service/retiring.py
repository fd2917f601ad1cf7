"""
What a reload has removed, and what sessions that have begun may still need.

A session keeps the settings that it started with.  Until it has its server, it may still wait in
the queue of a pool that a reload has removed, or be refused by a listener that is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from evproxy.model import Phase
from evproxy.session.live import LiveSessions
from evproxy.session.session import Session

INTERVAL = 0.25
"""Seconds between two looks whether the sessions have their servers."""

_BEFORE_RELAYING = (Phase.ACCEPTED, Phase.INSPECTING, Phase.CONNECTING)

_log = Logger()


@define(eq=False)
class _Retired:
    close: Callable[[], object]
    sessions: list[Session]


class Retiring:
    """
    Closes what is no longer needed, once no session of now can need it.

    The timeouts of sessions bound the wait.

    :param reactor: the timers.
    :param sessions: the sessions of the service.
    """

    def __init__(self, reactor: Any, sessions: LiveSessions) -> None:
        self._reactor = reactor
        self._sessions = sessions
        self._retired: list[_Retired] = []
        self._timer: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._retired)

    def add(self, close: Callable[[], object]) -> None:
        """Call `close` once every session of now has its server, or has ended."""
        waiting = [session for session in self._sessions if session.phase in _BEFORE_RELAYING]
        self._retired.append(_Retired(close, waiting))
        if self._timer is None:
            self._timer = self._reactor.callLater(0, self._look)

    def close(self) -> None:
        """No session is left: close everything."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        retired, self._retired = self._retired, []
        for each in retired:
            self._close(each)

    def _look(self) -> None:
        self._timer = None
        left = []
        for each in self._retired:
            each.sessions = [
                session for session in each.sessions if session.phase in _BEFORE_RELAYING
            ]
            if each.sessions:
                left.append(each)
            else:
                self._close(each)
        self._retired = left
        if left:
            self._timer = self._reactor.callLater(INTERVAL, self._look)

    def _close(self, retired: _Retired) -> None:
        with _log.failuresHandled("Could not close what a reload has removed"):
            retired.close()
