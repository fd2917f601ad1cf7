"""
The pace of one direction of a session: it is read only as fast as its rates allow.

What is not read fills the buffers of the kernel, so the peer that sends has to wait.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from evproxy.policy.shaping import Shaper


class Pace:
    """
    Says how many bytes a direction may read now, and calls back when it may read again.

    :param reactor: the time and the timers.
    :param shaper: has the rates.
    """

    __slots__ = ("_reactor", "_shaper", "_timer")

    def __init__(self, reactor: IReactorTime, shaper: Shaper) -> None:
        self._reactor = reactor
        self._shaper = shaper
        self._timer: IDelayedCall | None = None

    @property
    def waits(self) -> bool:
        """Whether the direction must wait: `resume` of the last `allowance_or_wait` comes."""
        return self._timer is not None

    def allowance_or_wait(self, resume: Callable[[], None]) -> int:
        """The bytes that may be read now; if there are none, `resume` is called later."""
        if self._timer is not None:
            return 0
        now = self._reactor.seconds()
        most = self._shaper.allowance(now)
        if not most:
            self._wait(now, resume)
        return most

    def spend(self, count: int) -> None:
        """`count` bytes were read."""
        self._shaper.spend(self._reactor.seconds(), count)

    def close(self) -> None:
        """The direction is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._shaper.close()

    def _wait(self, now: float, resume: Callable[[], None]) -> None:
        ready = self._shaper.resume_at(now)
        self._timer = self._reactor.callLater(max(0.0, ready - now), self._ready, resume)

    def _ready(self, resume: Callable[[], None]) -> None:
        self._timer = None
        now = self._reactor.seconds()
        if self._shaper.allowance(now):
            resume()
        else:
            # The next rate of the chain has a line of its own.
            self._wait(now, resume)


Paces = tuple[Pace | None, Pace | None]
"""The pace of the client's bytes, and that of the server's; ``None``: as fast as they go."""

NO_PACES: Paces = (None, None)
"""No limit in either direction."""
