"""
Times the turns of a loop.

A turn is what the loop does between two waits for events: from the return of one poll to the next
poll.  So a turn never includes a wait of the poll.

Rules: the loop's thread writes, other threads only read; `take_peak` may lose the peak of one turn.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any, TypeVar

BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""The upper bounds of the buckets of turns, in seconds: those of Synapse's histogram."""

LONG = BOUNDS[0]
"""A turn that takes longer is in another bucket than most."""

T = TypeVar("T")


class Turns:
    """
    Counts turns by how long they take, in seconds.

    `began`: the monotonic time at which the turn in progress began; infinite while the loop waits,
    and while nothing is timed.  `count`, `seconds`: how many turns are over, and how long they took
    together.  `longest`: the longest of them.  `last_long`: when the last turn of more than a
    millisecond began, and how long it took.
    """

    __slots__ = ("_buckets", "_peak", "began", "count", "last_long", "longest", "seconds")

    def __init__(self) -> None:
        self.began = inf
        self.count = 0
        self.seconds = 0.0
        self.longest = 0.0
        self.last_long = (-inf, 0.0)
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
        began, self.began = self.began, inf
        took = now - began
        if took > 0.0:
            self.count += 1
            self.seconds += took
            if took > self._peak:
                self._took_longest(took)
            if took > LONG:
                self.took_long(began, took)

    def go_on(self, now: float, count: int, seconds: float, longest: float) -> None:
        """
        Turns came and went that nobody else counted, and another one is in progress.

        The caller has set `began` for each of them, and has called `took_long` where it was due.

        :param now: the monotonic time at which the turn in progress began, if it has no `began`.
        :param count, seconds: how many turns are over, and how long they took together.
        :param longest: how long the longest of them took.
        """
        self.count += count
        self.seconds += seconds
        if longest > self._peak:
            self._took_longest(longest)
        if self.began == inf:
            self.began = now

    def took_long(self, began: float, took: float) -> None:
        """A turn that began at the monotonic time `began` took more than `LONG`."""
        self._buckets[bisect_left(BOUNDS, took)] += 1
        self.last_long = (began, took)

    def timed(self, wait: Callable[..., T]) -> Callable[..., T]:
        """Return a function that waits as `wait` does, and times the turns between its calls."""

        def timed_wait(*arguments: Any) -> T:
            self.over(monotonic())
            try:
                return wait(*arguments)
            finally:
                self.began = monotonic()

        return timed_wait

    def _took_longest(self, took: float) -> None:
        self._peak = took
        self.longest = max(self.longest, took)

    @property
    def peak(self) -> float:
        """How long the longest turn since the last `take_peak` took."""
        return self._peak

    def take_peak(self) -> float:
        """Return how long the longest turn since the last call took."""
        peak, self._peak = self._peak, 0.0
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
