"""
How often an event that may come in masses is logged.
"""

from __future__ import annotations

from math import inf


class Seldom:
    """
    Lets one event through in each period, and counts the others.

    :param period: seconds from one event that is logged to the next.
    """

    __slots__ = ("_left_out", "_period", "_said")

    def __init__(self, period: float) -> None:
        self._period = period
        self._said = -inf
        self._left_out = 0

    def left_out(self, now: float) -> int | None:
        """
        There is an event: return whether to log it, and how many were left out since the last one.

        :param now: seconds.
        :return: ``None``: leave it out.
        """
        if now - self._said < self._period:
            self._left_out += 1
            return None
        left_out, self._left_out = self._left_out, 0
        self._said = now
        return left_out
