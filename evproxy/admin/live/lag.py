"""
The lag of the event loop in one interval, from what a watchdog has counted since its start.

Pure.
"""

from __future__ import annotations

from evproxy.observe.watchdog.status import LoopStatus


class LoopLag:
    """Finds the longest turn of each interval."""

    def __init__(self) -> None:
        self._counts: list[int] = []

    def read(self, loop: LoopStatus | None) -> float | None:
        """
        Return how long the longest turn since the last call took, in seconds.

        A watchdog counts turns in buckets.  So this is the upper bound of the highest bucket that
        has more turns than before, but not more than the longest turn of the last minute.

        :param loop: what the watchdog says now; ``None``: there is none.
        :return: ``None`` if there is no watchdog.
        """
        if loop is None:
            return None
        before, self._counts = self._counts, [count for _, count in loop.buckets]
        more = [
            now - then
            for now, then in zip(self._counts, before or [0] * len(self._counts), strict=True)
        ]
        bound = 0.0
        if more and more[-1]:
            # The counts are cumulative: the first that has all of the turns has the longest one.
            bound = loop.buckets[more.index(more[-1])][0]
        return max(min(bound, loop.recent_longest_turn), loop.since_last_turn)
