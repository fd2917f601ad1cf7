"""
The live sessions of a service or factory: finds, lists, ends and drains them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from operator import length_hint
from typing import Any
from uuid import uuid4
from weakref import WeakValueDictionary

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from evproxy.config.declare import check_value
from evproxy.config.rules import Seconds
from evproxy.model import Ending, Side
from evproxy.records import SessionStatus
from evproxy.session.session import Session

RESET_BATCH = 32
"""How many sessions are reset in one turn of the reactor: about a millisecond's worth."""

MOST_LISTED = 256
"""How many sessions a list has, unless the caller asks for more: about a millisecond's worth."""

_log = Logger()


class ListenerCount:
    """How many `sessions` a listener has, also of the settings that it had before."""

    __slots__ = ("__weakref__", "sessions")

    def __init__(self) -> None:
        self.sessions = 0


def check_deadline(deadline: float | None) -> None:
    """
    Return if `deadline` can be that of a drain.

    :raises SettingsError: if it is neither ``None`` nor a number of seconds.
    """
    if deadline is not None:
        check_value(Seconds(0), deadline, ("deadline",))


class LiveSessions:
    """
    The sessions of one service or factory.

    `by_id` has them in the order in which they started.  `prefix` and the number of a session make
    its unique id.

    :param reactor: the time and the timers.
    """

    def __init__(self, reactor: Any) -> None:
        self.by_id: dict[int, Session] = {}
        # A count lives as long as a factory or a session of its listener.
        self._of_listeners: WeakValueDictionary[str, ListenerCount] = WeakValueDictionary()
        self.prefix = uuid4().hex[:12]
        self._reactor = reactor
        self._last_id = 0
        self._step = 1
        self._empty: list[Deferred[None]] = []
        self._deadline: IDelayedCall | None = None
        self._draining = False

    def __len__(self) -> int:
        return len(self.by_id)

    def __iter__(self) -> Iterator[Session]:
        return iter(self.by_id.values())

    def of_listener(self, name: str) -> ListenerCount:
        """Return the count of the listener called `name`; its sessions change the count."""
        return self._of_listeners.setdefault(name, ListenerCount())

    @property
    def last_id(self) -> int:
        """The number of the last session that has begun."""
        return self._last_id

    @property
    def step(self) -> int:
        """The difference between the numbers of two sessions in a row."""
        return self._step

    def number_as(self, worker: int, workers: int, after: int = 0) -> None:
        """
        Give sessions the numbers that no other worker gives: `worker` + 1, and every further one
        that is greater by `workers`.

        :param worker: which worker this is, from 0 on.
        :param after: no session has this number or a smaller one.
        """
        turns = max(0, after - worker + workers - 1) // workers
        self._last_id, self._step = worker + 1 + (turns - 1) * workers, workers

    def opened(self, session: Session) -> None:
        """`session` begins, and gets its number."""
        self._last_id = session.id = self._last_id + self._step
        self.by_id[session.id] = session

    def closed(self, session: Session) -> None:
        """`session` is over."""
        self.by_id.pop(session.id, None)
        if not self.by_id and self._empty:
            waiting, self._empty = self._empty, []
            for deferred in waiting:
                deferred.callback(None)

    def status(self, most: int = MOST_LISTED) -> tuple[SessionStatus, ...]:
        """Return snapshots of the `most` oldest sessions, the oldest first."""
        now = self._reactor.seconds()
        return tuple(session.status(now) for session in islice(self, most))

    def end(self, session_id: int) -> None:
        """
        Reset both sides of a session.

        :raises LookupError: if there is no such session, or no longer.
        """
        session = self.by_id.get(session_id)
        if session is None:
            raise LookupError(f"there is no session {session_id}")
        session.end(Side.PROXY, Ending.REQUESTED)

    def drain(self, deadline: float | None, closing: Deferred[Any]) -> Deferred[None]:
        """
        Let the running sessions finish; the Deferred fires when no session is left.

        :param deadline: seconds after which the remaining sessions are reset; ``None``: never.
        :param closing: fires when no session can begin any more.
        """
        self._draining = True
        self.end_within(deadline)
        drained: Deferred[None] = Deferred()
        closing.addCallback(lambda _: self.when_empty())
        closing.addCallback(self._cancel_deadline).chainDeferred(drained)
        return drained

    def end_within(self, deadline: float | None) -> None:
        """Reset the sessions of a drain in progress `deadline` seconds from now, or before."""
        if deadline is None or not self._draining:
            return
        deadline = max(0.0, deadline)
        if self._deadline is None:
            self._deadline = self._reactor.callLater(deadline, self._out_of_time)
        elif self._reactor.seconds() + deadline < self._deadline.getTime():
            self._deadline.reset(deadline)

    def when_empty(self) -> Deferred[None]:
        """Return a Deferred that fires when no session is left."""
        if not self.by_id:
            return succeed(None)
        deferred: Deferred[None] = Deferred()
        self._empty.append(deferred)
        return deferred

    def abort(self) -> None:
        """Reset every session now, `RESET_BATCH` of them in each turn of the reactor."""
        self._reset_next(iter(tuple(self)))

    def _reset_next(self, sessions: Iterator[Session]) -> None:
        for session in islice(sessions, RESET_BATCH):
            with _log.failuresHandled("Could not end a session"):
                session.end(Side.PROXY, Ending.DRAIN)
        if length_hint(sessions):
            self._reactor.callLater(0, self._reset_next, sessions)

    def _out_of_time(self) -> None:
        self._deadline = None
        self.abort()

    def _cancel_deadline(self, _: object) -> None:
        self._draining = False
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
