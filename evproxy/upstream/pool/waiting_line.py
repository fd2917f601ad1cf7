"""
The waiting line of a pool: the sessions that wait for a slot, and when they are told of one.

First come, first served.  All wait for the same time, so they time out in the order they came
in, and one timer for the first of them is enough.

A slot that a session frees goes to the first in the line at once.  Whatever else makes room
(a server that came up, or joined) is looked at in the next turn of the reactor.

Those who wait are told of room in passes from the front of the line to its end, `_BATCH` of
them in a turn.  What happens during a pass is looked at in another one after it, so that those
at the front who cannot use a slot keep nobody behind them from it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from itertools import islice
from typing import Any

from attrs import define
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from evproxy.errors import NoServerAvailable
from evproxy.interfaces import Server, Waiter
from evproxy.model import ConnectionInfo
from evproxy.upstream.pool.selection import Selection
from evproxy.upstream.pool.server import PoolServer

_log = Logger()


@define(slots=True, eq=False)
class _Place:
    """A session's place in the line; an `evproxy.interfaces.Waiter`."""

    line: Places
    number: int
    ready: Callable[[], None]
    gave_up: Callable[[Exception], None]
    deadline: float
    choosy: bool
    waits: bool = True

    def cancel(self) -> None:
        """Give the place up; neither callback will come."""
        self.line.leave(self)


class Places:
    """
    A bounded line, in which `waiting` sessions stand now.

    `choosy` are those of them that only some of the servers can help.

    :param reactor: tells the time and calls later.
    :param timeout: seconds that a session waits at the most; 0 or less: none waits.
    :param size: how many may wait; 0 or less: none.
    """

    def __init__(self, reactor: IReactorTime, timeout: float, size: int) -> None:
        self._reactor = reactor
        self._timeout = timeout
        self._size = size
        self.waiting = 0
        self.choosy = 0
        self._last = 0
        self._places: deque[_Place] = deque()
        self._asked: _Place | None = None
        self._timer: IDelayedCall | None = None

    @property
    def has_place(self) -> bool:
        """Whether one more may wait."""
        return self._timeout > 0 and self.waiting < self._size

    def join(
        self, ready: Callable[[], None], gave_up: Callable[[Exception], None], choosy: bool = False
    ) -> _Place | None:
        """
        A place at the end of the line, ``None`` if it is full.

        `choosy`: only some of the servers can help it.

        One that joins again while it is told of a slot keeps the place that it had.
        """
        asked = self._asked
        if asked is not None and asked.waits and asked.ready == ready:
            self._asked = None
            asked.gave_up = gave_up
            self.choosy += choosy - asked.choosy
            asked.choosy = choosy
            return asked
        if not self.has_place:
            return None
        self._last += 1
        deadline = self._reactor.seconds() + self._timeout
        place = _Place(self, self._last, ready, gave_up, deadline, choosy)
        self._places.append(place)
        self.waiting += 1
        self.choosy += choosy
        if self._timer is None:
            self._timer = self._reactor.callLater(self._timeout, self._time_out)
        return place

    def leave(self, place: _Place) -> None:
        """`place` waits no more."""
        if place.waits:
            place.waits = False
            self.waiting -= 1
            self.choosy -= place.choosy
            self._tidy()

    def wake(self, has_room: Callable[[], bool], ask_choosy: bool, most: int, after: int) -> int:
        """
        Tell the next `most` of the line, while `has_room`, that a slot may be free.

        :param ask_choosy: whether those that are choosy are told without room too, so that
            they find out whether there still is a server that can help them.
        :param after: the number of the last one that was told before; 0: begin at the front.
        :return: the number to go on after; 0 once there is nobody, or nothing, left to tell.
        """
        behind = (place for place in self._places if place.waits and place.number > after)
        batch = list(islice(behind, most))
        for place in batch:
            if not place.waits:
                continue
            if not has_room() and not (ask_choosy and place.choosy):
                if ask_choosy and self.choosy:
                    continue
                return 0
            self._asked = place
            _call(place.ready)
            if self._asked is place:
                self.leave(place)
            self._asked = None
        return batch[-1].number if len(batch) == most else 0

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
            why = f"{all_full(first.choosy)}; waited {self._timeout:g} s"
            _call(first.gave_up, NoServerAvailable(why))
        if first is not None and self._timer is None:
            self._timer = self._reactor.callLater(first.deadline - now, self._time_out)


def all_full(choosy: bool) -> str:
    """Why a session waits that every server, or if it is `choosy` only some, could help."""
    return "every server that it may go to is full" if choosy else "every server is full"


def _call(callback: Callable[..., None], *arguments: Any) -> None:
    """Call `callback`; that it breaks is of no concern to the next in the line."""
    try:
        callback(*arguments)
    except Exception:
        _log.failure("A session that waited for a slot broke")


_BATCH = 32
"""Sessions woken, or sent away, in one turn of the reactor, where it could be all of them."""


class WaitingLine:
    """
    Lets sessions wait in `line`, and wakes them when `selection` has room.

    `due` is the call in which it looks for room next, ``None`` if nothing has changed.

    :param reactor: calls later.
    :param overflowed: called with the reason when one more cannot wait.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        line: Places,
        selection: Selection,
        overflowed: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._line = line
        self._selection = selection
        self._overflowed = overflowed
        self._waking = False
        self._has_room: Callable[[], bool] = selection.has_any_room
        self._asks_choosy = False
        self._after = 0
        self._changed = False
        self._again = False
        self.due: IDelayedCall | None = None

    def join(
        self,
        info: ConnectionInfo,
        ready: Callable[[], None],
        gave_up: Callable[[Exception], None],
        tried: Collection[Server],
    ) -> Waiter:
        """See `evproxy.interfaces.Pool.wait`."""
        selection = self._selection
        if selection.stale:
            selection.refresh()
        why_not = selection.why_hopeless(info, tried)
        if why_not:
            raise NoServerAvailable(why_not)
        choosy = selection.choosy or bool(tried)
        place = self._line.join(ready, gave_up, choosy)
        if place is None:
            waiting = self._line.waiting
            queue = f"so is the queue ({waiting} waiting)" if waiting else "there is no queue"
            why_not = f"{all_full(choosy)}, and {queue}"
            self._overflowed(why_not)
            raise NoServerAvailable(why_not)
        return place

    def comes_first(self) -> bool:
        """Whether those who are woken in the next turn go before whoever comes in this one."""
        return self._line.waiting > 0 and self._line.has_place and not self._waking

    def freed(self, server: PoolServer) -> None:
        """`server` was full, and has a free slot."""
        if not self._line.waiting:
            return
        # A woken session may fail, and free its slot, before `ready` returns.
        if self._waking or self._after:
            self._again = True
            return
        self._has_room = lambda: self._selection.has_room(server)
        self._asks_choosy = False
        self._tell_next()

    def look_soon(self) -> None:
        """What has changed may give those who wait a slot, or be the end of their hope."""
        self._changed = True
        self._schedule()

    def stop(self, why: str) -> None:
        """No timer is left; those who wait give up, told `why`."""
        if self.due is not None:
            self.due.cancel()
            self.due = None
        self._after = 0
        self._changed = self._again = False
        self._line.dissolve(why, self._line.waiting)

    def _schedule(self) -> None:
        if self._line.waiting and self.due is None:
            self.due = self._reactor.callLater(0, self._look)

    def _look(self) -> None:
        self.due = None
        selection = self._selection
        if selection.stale:
            selection.refresh()
        if not (selection.usable or selection.panic):
            if not selection.refusing:
                selection.refuse()
            self._after = 0
            self._line.dissolve(selection.why_not(), _BATCH)
            self._schedule()
            return
        if not self._after:
            self._has_room = selection.has_any_room
            self._asks_choosy = self._changed
            self._changed = self._again = False
        self._tell_next()

    def _tell_next(self) -> None:
        """Begin a pass, or go on with it."""
        self._waking = True
        try:
            self._after = self._line.wake(self._has_room, self._asks_choosy, _BATCH, self._after)
        finally:
            self._waking = False
        if self._after or self._changed or self._again:
            self._schedule()
