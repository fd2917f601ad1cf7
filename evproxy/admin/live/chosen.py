"""
The sessions and servers that one question means, chosen while all of them pass by.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import Any

from attrs import frozen

from evproxy.admin.answers import encoded
from evproxy.admin.fields import Fields, shown
from evproxy.admin.live.orders import SORTS
from evproxy.admin.live.question import Question
from evproxy.admin.sessions import SESSION
from evproxy.engine.slices import in_slices
from evproxy.records import SessionStatus
from evproxy.upstream.pool.status import ServerStatus

Entry = tuple[Any, int, bytes]
"""A session as a viewer sees it: the key of its order, its number, and its JSON."""

_Kept = tuple[Any, int, tuple[SessionStatus, float, float]]


@frozen
class Found:
    """
    The sessions that one question means.

    `entries`: the first ones, in the order of the question, at most its limit.  `matching`: how
    many sessions it means.
    """

    entries: Sequence[Entry]
    matching: int


class ChosenSessions:
    """
    Chooses the sessions that `question` means.

    Keeps at most twice as many as the question wants.
    """

    def __init__(self, question: Question) -> None:
        self._key = SORTS[question.sort][0]
        self._reverse = _reverse(question)
        self._words = question.words
        self._limit = question.limit
        self._kept: list[_Kept] = []
        self._matching = 0

    def look(self, session: SessionStatus, up: float, down: float) -> None:
        """A session passes by, which moves `up` and `down` bytes a second."""
        if self._words and not _fits(
            self._words,
            session.peer,
            session.listener,
            session.pool,
            session.upstream,
            session.route,
            session.phase.value,
        ):
            return
        self._matching += 1
        kept = self._kept
        kept.append((self._key(session, up + down), session.id, (session, up, down)))
        if len(kept) >= 2 * self._limit:
            self._cut()

    async def found(self, reactor: Any) -> Found:
        """Return the sessions; they become JSON in slices."""
        self._cut()
        return Found(await in_slices(reactor, iter(self._kept), _entry), self._matching)

    def _cut(self) -> None:
        self._kept.sort(key=_place, reverse=self._reverse)
        del self._kept[self._limit :]


class ChosenServers:
    """
    Chooses the servers that `question` means: first those that are not up.

    `matching`: how many it means.
    """

    def __init__(self, question: Question) -> None:
        self._words = question.words
        self._limit = question.limit
        self._not_up: list[tuple[str, ServerStatus]] = []
        self._up: list[tuple[str, ServerStatus]] = []
        self.matching = 0

    def look(self, pool: str, server: ServerStatus) -> None:
        """A server of `pool` passes by."""
        if self._words and not _fits(self._words, pool, server.name, server.state, server.why):
            return
        self.matching += 1
        kept = self._up if server.state == "up" else self._not_up
        if len(kept) < self._limit:
            kept.append((pool, server))

    @property
    def servers(self) -> list[tuple[str, ServerStatus]]:
        """The servers, each with the name of its pool."""
        return [*self._not_up, *self._up][: self._limit]


def in_order(question: Question, parts: Iterable[Sequence[Entry]]) -> Iterator[Entry]:
    """
    Yield the first entries of all `parts`, at most as many as `question` wants.

    :param parts: each is in the order of the question.
    """
    return islice(merge(*parts, key=_place, reverse=_reverse(question)), question.limit)


def server_entry(fields: Fields, pool: str, server: ServerStatus, up: float, down: float) -> bytes:
    """Return the JSON of a server of `pool`, whose sessions move `up` and `down` bytes a second."""
    return encoded({"pool": pool, **shown(fields, server), **_rates(up, down)})


def _entry(kept: _Kept) -> Entry:
    key, number, (status, up, down) = kept
    return key, number, encoded({**shown(SESSION, status), **_rates(up, down)})


def _rates(up: float, down: float) -> dict[str, float]:
    return {"rate_to_upstream": round(up, 1), "rate_to_downstream": round(down, 1)}


def _place(each: tuple[Any, int, Any]) -> tuple[Any, int]:
    return each[:2]


def _reverse(question: Question) -> bool:
    return SORTS[question.sort][1] != bool(question.order)


def _fits(words: Sequence[str], *texts: str) -> bool:
    text = "\n".join(texts).lower()
    return all(word in text for word in words)
