"""
What a viewer asks to see: which servers and sessions, and in which order.

Pure.
"""

from __future__ import annotations

from attrs import frozen

from evproxy.admin.answers import Problem
from evproxy.admin.live.orders import MOST_SHOWN, SORTS
from evproxy.admin.operations import MOST_ID
from evproxy.config.declare import setting
from evproxy.config.rules import Choice, Text, Whole

MOST_WORDS = 8
"""The most words of a filter."""


@frozen
class Question:
    """What to show."""

    filter: str = setting(
        Text(),
        f"Only servers and sessions with all of these words, at most {MOST_WORDS}, in their names, "
        "addresses, states, routes or reasons. Upper and lower case are the same.",
        default="",
    )
    sort: str = setting(
        Choice(tuple(SORTS)),
        "The order of sessions. Numbers have the highest first, and texts the lowest.",
        default="rate",
    )
    order: str = setting(Choice(("", "reversed")), "`reversed`: the other way round.", default="")
    limit: int = setting(
        Whole(1, MOST_SHOWN), "The most servers, and the most sessions.", default=100
    )
    events: int = setting(
        Whole(0, MOST_ID), "The answer ends after this many events. 0: it does not end.", default=0
    )

    @property
    def words(self) -> tuple[str, ...]:
        """
        The words of the filter, in lower case.

        :raises Problem: if there are too many.
        """
        words = tuple(self.filter.lower().split())
        if len(words) > MOST_WORDS:
            raise Problem(400, f"filter: expected at most {MOST_WORDS} words, got {len(words)}")
        return words
