"""
What a viewer asks to see: which servers and sessions, and in which order.

Pure.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from evproxy.admin.answers import Problem
from evproxy.admin.live.orders import MOST_SHOWN, SORTS
from evproxy.admin.operations import MOST_ID
from evproxy.config.declare import setting
from evproxy.config.rules import Choice, Text, Whole
from evproxy.records import SessionStatus

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


Seen = tuple[SessionStatus, float, float]
"""A session, and the bytes a second that it moves to upstream and to downstream."""


class Chosen:
    """
    The servers and sessions that one question means, collected while all of them pass by.

    Keeps at most twice as many as the question wants.  `matching`: how many sessions it means.
    """

    def __init__(self, question: Question) -> None:
        key, highest_first = SORTS[question.sort]
        self._key = key
        self._reverse = highest_first != bool(question.order)
        self._words = question.words
        self._limit = question.limit
        self._sessions: list[tuple[Any, int, Seen]] = []
        self._servers: tuple[list[Any], list[Any]] = ([], [])
        self.matching = 0
        self.servers_matching = 0

    def session(self, session: SessionStatus, up: float, down: float) -> None:
        """A session passes by, which moves `up` and `down` bytes a second."""
        if self._words and not self._fits(
            session.peer,
            session.listener,
            session.pool,
            session.upstream,
            session.route,
            session.phase.value,
        ):
            return
        self.matching += 1
        kept = self._sessions
        kept.append((self._key(session, up + down), session.id, (session, up, down)))
        if len(kept) >= 2 * self._limit:
            self._cut()

    def server(self, pool: str, name: str, state: str, why: str, entry: Any) -> None:
        """A server passes by, which `entry` shows."""
        if self._words and not self._fits(pool, name, state, why):
            return
        self.servers_matching += 1
        kept = self._servers[state == "up"]
        if len(kept) < self._limit:
            kept.append(entry)

    def _fits(self, *texts: str) -> bool:
        text = "\n".join(texts).lower()
        return all(word in text for word in self._words)

    def _cut(self) -> None:
        self._sessions.sort(key=lambda each: each[:2], reverse=self._reverse)
        del self._sessions[self._limit :]

    @property
    def sessions(self) -> list[Seen]:
        """The sessions, in the order that the question asks for."""
        self._cut()
        return [seen for _, _, seen in self._sessions]

    @property
    def servers(self) -> list[Any]:
        """The servers: first those that are not up."""
        not_up, up = self._servers
        return [*not_up, *up][: self._limit]
