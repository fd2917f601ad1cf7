"""The steps of a discovery: a step is running, or the next step is scheduled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Steps:
    """
    Runs one step after the other while `running` is true.

    `stop` cancels the current step.  A cancelled step still calls its callbacks, so these must
    check `running`.

    :param clock: the timers.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.running = False
        self._clock = clock
        self._current: Deferred[Any] | None = None
        self._timer: IDelayedCall | None = None

    def start(self, begin: Callable[[], None]) -> None:
        """Begin the first step, unless steps are running."""
        if not self.running:
            self.running = True
            begin()

    def set_current(self, step: Deferred[Any]) -> None:
        """`step` has begun; the callbacks that begin the next step are already added."""
        # If `step` has already fired, its callbacks have begun the next step.
        if not step.called:
            self._current = step

    def call_during_step(self, seconds: float, call: Callable[[], None]) -> None:
        """Call `call` after `seconds` if the step is still running; at most one such call."""
        if self.running and self._timer is None:
            self._timer = self._clock.callLater(seconds, self._on_timer, call)

    def pause(self, seconds: float, begin: Callable[[], None]) -> None:
        """The step is over; `begin` the next step after `seconds`, unless `stop` was called."""
        if not self.running:
            return
        self._current = None
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.callLater(seconds, self._on_timer, begin)

    def stop(self) -> None:
        """Cancel the timer and the current step."""
        self.running = False
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        current, self._current = self._current, None
        if current is not None:
            current.cancel()

    def _on_timer(self, call: Callable[[], None]) -> None:
        self._timer = None
        call()
