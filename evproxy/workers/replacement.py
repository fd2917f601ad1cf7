"""
When a worker that has died is replaced, and what is said about it.  Pure.
"""

from __future__ import annotations

from attrs import define

FIRST_DELAY = 0.1
"""Seconds until the first replacement."""

LONGEST_DELAY = 5.0
"""The most seconds between two starts: the clients in the worker's accept queue wait so long."""

STEADY = 10.0
"""A worker that has lived so many seconds has not died at once."""

SAID_EACH = 3
"""So many deaths in a row are reported one by one."""

PERIOD = 60.0
"""Seconds between two reports of further deaths in a row."""


@define
class Replacement:
    """
    The deaths of one worker and its replacements.

    `restarts` counts all deaths.
    """

    restarts: int = 0
    in_a_row: int = 0
    _said: float = 0.0
    _unsaid: int = 0

    def delay(self, lived: float) -> float:
        """
        The seconds until the worker is replaced: twice as many after each death in a row.

        :param lived: seconds from its start to its death.
        """
        self.in_a_row = 1 if lived >= STEADY else self.in_a_row + 1
        self.restarts += 1
        return min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(self.in_a_row - 1, 32))

    def died_at_the_end(self) -> None:
        """Count a death after which no process takes the place of the worker."""
        self.restarts += 1

    def report(self, now: float) -> int:
        """How many deaths to report now; 0: none, they are reported once a period."""
        self._unsaid += 1
        if self.in_a_row > SAID_EACH and now - self._said < PERIOD:
            return 0
        self._said = now
        deaths, self._unsaid = self._unsaid, 0
        return deaths
