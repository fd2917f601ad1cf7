"""
Coarse deadlines for many things with one timer.

Every session has a deadline, most deadlines are never reached, and none needs to be exact.  So
deadlines are kept in buckets, each of them a set, and the only timer is for the earliest bucket.
Adding, moving and dropping a deadline are operations on sets, without timers of their own.  (The
idea is the hierarchical timing wheel of Varghese and Lauck, 1987, with a dictionary for the
wheels.)
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

TICK = 0.05
"""The width in seconds of the narrowest bucket."""

PRECISION = 6
"""A deadline is late by at most `TICK` or one part in 2 ** (PRECISION - 1), and never early."""

BATCH = 200
"""The most deadlines that are handled before the reactor gets its turn."""


class Expiring(Protocol):
    """Something with a deadline."""

    def deadline_reached(self, now: float) -> None:
        """The deadline is reached.  For another deadline, call `Deadlines.add` again."""


class Deadlines:
    """
    The deadlines of one service.

    :param clock: tells the time (``seconds``) and calls later (``callLater``).
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._buckets: dict[int, set[Expiring]] = {}
        self._order: list[int] = []
        self._count = 0
        self._timer: IDelayedCall | None = None
        self._timer_bucket = 0
        # Most deadlines have the same delay as the one before.
        self._delay = -1.0
        self._shift = 0

    def add(self, item: Expiring, now: float, delay: float) -> int:
        """
        Call ``item.deadline_reached`` once, `delay` seconds after `now` or a little later.

        :return: the bucket, which `discard` needs.
        """
        if delay != self._delay:
            # Far deadlines go into wide buckets, so that there are few of them.
            self._shift = max(0, int(delay / TICK).bit_length() - PRECISION)
            self._delay = delay
        shift = self._shift
        bucket = (int((now + delay) / TICK) >> shift) + 1 << shift
        items = self._buckets.get(bucket)
        if items is None:
            items = self._buckets[bucket] = set()
            heappush(self._order, bucket)
            if self._timer is None or bucket < self._timer_bucket:
                self._schedule(bucket)
        items.add(item)
        self._count += 1
        return bucket

    def discard(self, item: Expiring, bucket: int) -> None:
        """Drop the deadline of `item`.  The deadline must not have been reached yet."""
        self._buckets[bucket].remove(item)
        self._count -= 1
        if not self._count:
            self._buckets.clear()
            self._order.clear()
            self._cancel()

    def _schedule(self, bucket: int) -> None:
        self._cancel()
        delay = max(0.0, bucket * TICK - self._clock.seconds())
        self._timer = self._clock.callLater(delay, self._sweep)
        self._timer_bucket = bucket

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sweep(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        left = BATCH
        try:
            while self._order and self._order[0] * TICK <= now and left:
                items = self._buckets[self._order[0]]
                if items:
                    left -= 1
                    self._count -= 1
                    items.pop().deadline_reached(now)
                else:
                    del self._buckets[heappop(self._order)]
        finally:
            if not self._count:
                self._buckets.clear()
                self._order.clear()
                self._cancel()
            else:
                # A deadline that was added meanwhile may have set a timer, but not for these.
                self._schedule(self._order[0])
