"""
How long to wait before the next try: longer each time, bounded, and not in step with others.

Pure; chance is injected.
"""

from __future__ import annotations

from random import Random


class Backoff:
    """
    Delays that double from `first` to `most` seconds, each drawn from its upper half.

    (Exponential backoff with "equal jitter", as in Brooker, "Exponential Backoff And
    Jitter", AWS Architecture Blog, 2015.)
    """

    def __init__(self, first: float, most: float, random: Random) -> None:
        self._first = first
        self._most = max(first, most)
        self._random = random
        self._delay = first

    def next(self) -> float:
        """The seconds to wait after one more failure."""
        delay = self._delay
        self._delay = min(2 * delay, self._most)
        return delay * self._random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """It went well: the next delay is the first again."""
        self._delay = self._first
