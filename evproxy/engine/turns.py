"""
Times the turns of a loop.

A turn is what the loop does between two waits for events: from the return of one poll to the next
poll.  So a turn never includes a wait of the poll.

Rules: the loop's thread writes, other threads only read; `take_peak` may lose the peak of one turn.
The engine has a turn for each batch that it waits for, so what is done for each turn must cost less
than a hundredth of a batch.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any, TypeVar

BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""The upper bounds of the buckets of turns, in seconds: those of Synapse's histogram."""

T = TypeVar("T")


class Turns:
    """
    Counts turns by how long they take, in seconds.

    `began`: the monotonic time at which the turn in progress began; infinite while the loop waits,
    and while nothing is timed.  `count`, `seconds`: how many turns are over, and how long they took
    together.  `longest`: the longest of them.  `last_long`: when the last turn of more than a
    millisecond began, and how long it took.
    """

    __slots__ = ("_buckets", "_peak", "_quick", "began", "count", "last_long", "longest", "seconds")

    def __init__(self) -> None:
        self.began = inf
        self.count = 0
        self.seconds = 0.0
        self.longest = 0.0
        self.last_long = (-inf, 0.0)
        # A turn that takes no longer is neither a new peak nor in any bucket but the first.
        self._quick = 0.0
        self._peak = 0.0
        # The first bucket is not counted; the last one has no bound.
        self._buckets = [0] * (len(BOUNDS) + 1)

    def begin(self, at: float | None = None) -> None:
        """A turn begins: now, or at the monotonic time `at`, which may still come."""
        self.began = monotonic() if at is None else at

    def end(self) -> None:
        """The turn in progress is over, if there is one."""
        self.over(monotonic())

    def over(self, now: float) -> None:
        """The turn in progress was over at the monotonic time `now`, if there is one."""
        took = now - self.began
        if took > 0.0:
            self.count += 1
            self.seconds += took
            if took > self._quick:
                self._took_long(self.began, took)
        self.began = inf

    def timed(self, wait: Callable[..., T]) -> Callable[..., T]:
        """Return a function that waits as `wait` does, and times the turns between its calls."""

        def timed_wait(*arguments: Any) -> T:
            self.over(monotonic())
            try:
                return wait(*arguments)
            finally:
                self.began = monotonic()

        return timed_wait

    def _took_long(self, began: float, took: float) -> None:
        if took > self._peak:
            self._peak = took
            self._quick = min(took, BOUNDS[0])
            self.longest = max(self.longest, took)
        if took > BOUNDS[0]:
            self._buckets[bisect_left(BOUNDS, took)] += 1
            self.last_long = (began, took)

    @property
    def peak(self) -> float:
        """How long the longest turn since the last `take_peak` took."""
        return self._peak

    def take_peak(self) -> float:
        """Return how long the longest turn since the last call took."""
        peak, self._peak, self._quick = self._peak, 0.0, 0.0
        return peak

    def buckets(self) -> tuple[tuple[float, int], ...]:
        """
        Return for each of `BOUNDS`, and for infinity, how many turns took at most so long.

        The numbers are consistent if the loop's thread calls this.
        """
        slow = self._buckets[1:]
        counted = self.count - sum(slow)
        buckets = []
        for bound, count in zip((*BOUNDS, inf), (0, *slow), strict=True):
            counted += count
            buckets.append((bound, counted))
        return tuple(buckets)
