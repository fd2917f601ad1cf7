"""
The queue of a pool: who may wait for a slot, and when those who wait are woken.

A slot that a session frees goes to the first in the line at once.  Whatever else makes room
(a server that came up, or joined) is looked at in the next turn of the reactor.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from evproxy.interfaces import Server, Waiter
from evproxy.upstream.selection import Selection
from evproxy.upstream.server import PoolServer
from evproxy.upstream.waiting import WaitingLine

_BATCH = 32
"""Sessions woken, or sent away, in one turn of the reactor, where it could be all of them."""


class Queue:
    """
    Lets sessions wait in `line`, and wakes them when `selection` has room.

    `due` is the call in which it looks for room next, ``None`` if nothing has changed.

    :param reactor: calls later.
    :param overflowed: called with the number of those who wait when one more cannot.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        line: WaitingLine,
        selection: Selection,
        overflowed: Callable[[int], None],
    ) -> None:
        self._reactor = reactor
        self._line = line
        self._selection = selection
        self._overflowed = overflowed
        self._waking = False
        self.due: IDelayedCall | None = None

    def join(
        self,
        ready: Callable[[], None],
        gave_up: Callable[[Exception], None],
        tried: Collection[Server],
    ) -> Waiter | None:
        """See `evproxy.interfaces.Pool.wait`."""
        selection = self._selection
        if selection.stale:
            selection.refresh()
        if not selection.may_serve_beyond(tried):
            return None
        place = self._line.join(ready, gave_up)
        if place is None:
            self._overflowed(self._line.waiting)
        return place

    def comes_first(self) -> bool:
        """Whether those who are woken in the next turn go before whoever comes in this one."""
        return self._line.waiting > 0 and self._line.has_place and not self._waking

    def freed(self, server: PoolServer) -> None:
        """`server` was full, and has a free slot."""
        if self._line.waiting:
            self._wake(lambda: self._selection.has_room(server))

    def look_soon(self) -> None:
        """What has changed may give those who wait a slot, or be the end of their hope."""
        if self._line.waiting and self.due is None:
            self.due = self._reactor.callLater(0, self._look)

    def stop(self, why: str) -> None:
        """No timer is left; those who wait give up, told `why`."""
        if self.due is not None:
            self.due.cancel()
            self.due = None
        self._line.dissolve(why, self._line.waiting)

    def _wake(self, has_room: Callable[[], bool]) -> None:
        """Wake those who wait while `has_room`, as many as is good for one turn."""
        # A woken session may fail, and free its slot, before `ready` returns.
        if self._waking:
            return
        self._waking = True
        try:
            moved = self._line.wake(has_room, _BATCH)
        finally:
            self._waking = False
        # If nobody could use the room, nobody can in the next turn.
        if moved and self._line.waiting and has_room():
            self.look_soon()

    def _look(self) -> None:
        self.due = None
        selection = self._selection
        if selection.stale:
            selection.refresh()
        if selection.usable or selection.panic:
            self._wake(selection.has_any_room)
            return
        if not selection.refusing:
            selection.refuse()
        self._line.dissolve(selection.why_not(), _BATCH)
        self.look_soon()
