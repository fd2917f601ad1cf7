"""What a discovery is at: a step that is under way, or the pause until the next one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Steps:
    """
    One step after the other while it is `going`.

    A step that is cancelled by `stop` still calls back, and has to ask whether it is.

    :param clock: calls later.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.going = False
        self._clock = clock
        self._step: Deferred[Any] | None = None
        self._timer: IDelayedCall | None = None

    def start(self, begin: Callable[[], None]) -> None:
        """Begin the first step, unless it is going already."""
        if not self.going:
            self.going = True
            begin()

    def under_way(self, step: Deferred[Any]) -> None:
        """A step has begun; what it leads to is among its callbacks already."""
        # One that is over at once has begun what comes after it.
        if not step.called:
            self._step = step

    def meanwhile(self, seconds: float, call: Callable[[], None]) -> None:
        """`call` after so many seconds, if the step is under way then; one at a time."""
        if self.going and self._timer is None:
            self._timer = self._clock.callLater(seconds, self._go_on, call)

    def pause(self, seconds: float, begin: Callable[[], None]) -> None:
        """The step is over; `begin` the next one after so many seconds."""
        self._step = None
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.callLater(seconds, self._go_on, begin)

    def stop(self) -> None:
        """No timer is left, and no step."""
        self.going = False
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        step, self._step = self._step, None
        if step is not None:
            step.cancel()

    def _go_on(self, call: Callable[[], None]) -> None:
        self._timer = None
        call()
