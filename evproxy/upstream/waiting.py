"""
The sessions that wait for a slot, first come, first served.

All wait for the same time, so they time out in the order they came in, and one timer for
the first of them is enough.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

from attrs import define
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from evproxy.errors import NoServerAvailable

_log = Logger()


@define(slots=True, eq=False)
class _Place:
    """A session's place in the line; an `evproxy.interfaces.Waiter`."""

    line: WaitingLine
    ready: Callable[[], None]
    gave_up: Callable[[Exception], None]
    deadline: float
    waits: bool = True

    def cancel(self) -> None:
        """Give the place up; neither callback will come."""
        self.line.leave(self)


class WaitingLine:
    """
    A bounded line, in which `waiting` sessions stand now.

    :param reactor: tells the time and calls later.
    :param timeout: seconds that a session waits at the most; 0 or less: none waits.
    :param size: how many may wait; 0 or less: none.
    """

    def __init__(self, reactor: IReactorTime, timeout: float, size: int) -> None:
        self._reactor = reactor
        self._timeout = timeout
        self._size = size
        self.waiting = 0
        self._places: deque[_Place] = deque()
        self._asked: _Place | None = None
        self._timer: IDelayedCall | None = None

    @property
    def has_place(self) -> bool:
        """Whether one more may wait."""
        return self._timeout > 0 and self.waiting < self._size

    def join(
        self, ready: Callable[[], None], gave_up: Callable[[Exception], None]
    ) -> _Place | None:
        """
        A place at the end of the line, ``None`` if it is full.

        One that joins again while it is told of a slot keeps the place that it had.
        """
        asked = self._asked
        if asked is not None and asked.waits and asked.ready == ready:
            self._asked = None
            asked.gave_up = gave_up
            return asked
        if not self.has_place:
            return None
        place = _Place(self, ready, gave_up, self._reactor.seconds() + self._timeout)
        self._places.append(place)
        self.waiting += 1
        if self._timer is None:
            self._timer = self._reactor.callLater(self._timeout, self._time_out)
        return place

    def leave(self, place: _Place) -> None:
        """`place` waits no more."""
        if place.waits:
            place.waits = False
            self.waiting -= 1
            self._tidy()

    def wake(self, has_room: Callable[[], bool], most: int) -> bool:
        """
        Tell the first `most` of the line, while `has_room`, that a slot may be free.

        :return: whether any of them waits no more.
        """
        moved = False
        for place in list(islice((place for place in self._places if place.waits), most)):
            if not has_room():
                break
            if not place.waits:
                continue
            self._asked = place
            _call(place.ready)
            if self._asked is place:
                self.leave(place)
                moved = True
            self._asked = None
        return moved

    def dissolve(self, why: str, most: int) -> None:
        """The first `most` of the line give up, told `why`."""
        for _ in range(most):
            first = self._first()
            if first is None:
                return
            self.leave(first)
            if first is not self._asked:
                _call(first.gave_up, NoServerAvailable(why))

    def _first(self) -> _Place | None:
        while self._places and not self._places[0].waits:
            self._places.popleft()
        return self._places[0] if self._places else None

    def _tidy(self) -> None:
        """Forget the gone once they are the most, and the timer with the last."""
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
            why = f"every server is full; waited {self._timeout:g} s"
            _call(first.gave_up, NoServerAvailable(why))
        if first is not None and self._timer is None:
            self._timer = self._reactor.callLater(first.deadline - now, self._time_out)


def _call(callback: Callable[..., None], *arguments: Any) -> None:
    """Call `callback`; that it breaks is of no concern to the next in the line."""
    try:
        callback(*arguments)
    except Exception:
        _log.failure("A session that waited for a slot broke")
