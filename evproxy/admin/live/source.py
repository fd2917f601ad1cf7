"""
What the feed looks at: the sessions and servers of one process, or of several.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Protocol

from attrs import frozen

from evproxy.admin.live.history import Sample
from evproxy.admin.live.question import Question


@frozen
class Look:
    """
    One look.

    `sample`: that of the interval.  `event`: returns the JSON that answers one of the questions of
    the look.
    """

    sample: Sample
    event: Callable[[Question], Awaitable[bytes]]


class Source(Protocol):
    """Looks at a proxy."""

    @property
    def sessions(self) -> int:
        """How many sessions there are now; of several processes: the most that one of them has."""

    async def look(self, questions: Collection[Question]) -> Look:
        """
        Look now.

        :param questions: what viewers want to see; empty: only the sample is wanted.
        """
