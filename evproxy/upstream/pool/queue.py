"""
The queue of a pool: the sessions that wait for a slot, in order, and their timeouts.

First come, first served.  All sessions have the same timeout, so they time out in the order in
which they joined, and one timer for the first session is enough.  If a reload shortens the timeout,
a session does not time out before those in front of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

from attrs import define
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from evproxy.errors import NoServerAvailable, QueueTimeout

_log = Logger()


@define(slots=True, eq=False)
class Place:
    """
    A session's place in the queue; an `evproxy.interfaces.Waiter`.

    `restricted` says that only some of the servers may serve the session.  `ahead` is how many
    sessions waited when the session joined.
    """

    queue: Queue
    number: int
    ready: Callable[[], None]
    gave_up: Callable[[Exception], None]
    timeout: float
    deadline: float
    restricted: bool
    ahead: int = 0
    waits: bool = True

    def cancel(self) -> None:
        """Give the place up; neither callback will be called."""
        self.queue.leave(self)


class Queue:
    """
    A bounded queue, in which `waiting` sessions wait now.

    `restricted` of these sessions may only use some of the servers.

    :param reactor: the time and the timers.
    :param timeout: the most seconds that a session waits; 0 or less: no session may wait.
    :param size: how many sessions may wait; 0 or less: none.
    """

    def __init__(self, reactor: IReactorTime, timeout: float, size: int) -> None:
        self._reactor = reactor
        self._timeout = timeout
        self._size = size
        self.waiting = 0
        self.restricted = 0
        self._last_number = 0
        self._places: deque[Place] = deque()
        self._notified: Place | None = None
        self._timer: IDelayedCall | None = None

    def bound(self, timeout: float, size: int) -> None:
        """Sessions that join from now on have this `timeout`, and the queue this `size`."""
        self._timeout = timeout
        self._size = size

    @property
    def has_place(self) -> bool:
        """Whether one more session may wait."""
        return self._timeout > 0 and self.waiting < self._size

    @property
    def still_waiting(self) -> int:
        """How many sessions wait, without the one that is being notified."""
        notified = self._notified
        return self.waiting - (notified is not None and notified.waits)

    def join(
        self,
        ready: Callable[[], None],
        gave_up: Callable[[Exception], None],
        restricted: bool = False,
    ) -> Place | None:
        """
        Take a place at the end of the queue; ``None`` if the queue is full.

        A session that joins again within its `ready` callback keeps its place and deadline.

        :param restricted: whether only some of the servers may serve the session.
        """
        notified = self._notified
        if notified is not None and notified.waits and notified.ready == ready:
            self._notified = None
            notified.gave_up = gave_up
            self.restricted += restricted - notified.restricted
            notified.restricted = restricted
            return notified
        if not self.has_place:
            return None
        self._last_number += 1
        deadline = self._reactor.seconds() + self._timeout
        if self._places:
            deadline = max(deadline, self._places[-1].deadline)
        place = Place(
            self,
            self._last_number,
            ready,
            gave_up,
            self._timeout,
            deadline,
            restricted,
            self.waiting,
        )
        self._places.append(place)
        self.waiting += 1
        self.restricted += restricted
        if self._timer is None:
            self._timer = self._reactor.callLater(self._timeout, self._time_out)
        return place

    def leave(self, place: Place) -> None:
        """The session at `place` stops waiting."""
        if place.waits:
            place.waits = False
            self.waiting -= 1
            self.restricted -= place.restricted
            self._tidy()

    def notify(
        self, has_room: Callable[[], bool], notify_restricted: bool, most: int, after: int
    ) -> int:
        """
        Notify the next `most` sessions, while `has_room`, that a slot may be free.

        :param notify_restricted: whether to notify restricted sessions even without room, so
            that they check whether a server may still serve them.
        :param after: the number of the last session notified before; 0: begin at the front.
        :return: the `after` for the next call; 0 if no further session has to be notified.
        """
        rest = (place for place in self._places if place.waits and place.number > after)
        batch = list(islice(rest, most))
        for place in batch:
            if not place.waits:
                continue
            if not has_room() and not (notify_restricted and place.restricted):
                if notify_restricted and self.restricted:
                    continue
                return 0
            self._notified = place
            _call(place.ready)
            if self._notified is place:
                self.leave(place)
            self._notified = None
        return batch[-1].number if len(batch) == most else 0

    def dissolve(self, why: str, most: int) -> None:
        """Make the first `most` sessions give up, with the reason `why`."""
        for _ in range(most):
            first = self._first()
            if first is None:
                return
            self.leave(first)
            if first is not self._notified:
                _call(first.gave_up, NoServerAvailable(why))

    def _first(self) -> Place | None:
        while self._places and not self._places[0].waits:
            self._places.popleft()
        return self._places[0] if self._places else None

    def _tidy(self) -> None:
        """Drop abandoned places when they are the majority; cancel the timer of an empty queue."""
        if not self.waiting:
            self._places.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        elif len(self._places) > 2 * self.waiting + 64:
            self._places = deque(place for place in self._places if place.waits)

    def _time_out(self) -> None:
        self._timer = None
        now = self._reactor.seconds()
        while (first := self._first()) is not None and first.deadline <= now:
            self.leave(first)
            why = f"{why_full(first.restricted)}; waited {first.timeout:g} s"
            _call(first.gave_up, QueueTimeout(why))
        if first is not None and self._timer is None:
            self._timer = self._reactor.callLater(first.deadline - now, self._time_out)


def why_full(restricted: bool) -> str:
    """Why a session waits: all servers, or all that a `restricted` session may use, are full."""
    return (
        "every server that this session may use is full" if restricted else "every server is full"
    )


def _call(callback: Callable[..., None], *arguments: Any) -> None:
    """Call `callback`.  Log its exceptions, so that the next session is still notified."""
    with _log.failuresHandled("A callback of a session in the queue raised an exception"):
        callback(*arguments)
