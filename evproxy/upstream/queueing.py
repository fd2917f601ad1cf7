"""
The queue of a pool: who may wait for a slot, and when those who wait are woken.

A slot that a session frees goes to the first in the line at once.  Whatever else makes room
(a server that came up, or joined) is looked at in the next turn of the reactor.

Those who wait are told of room in passes from the front of the line to its end, `_BATCH` of
them in a turn.  What happens during a pass is looked at in another one after it, so that those
at the front who cannot use a slot keep nobody behind them from it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from evproxy.errors import NoServerAvailable
from evproxy.interfaces import Server, Waiter
from evproxy.model import ConnectionInfo
from evproxy.upstream.selection import Selection
from evproxy.upstream.server import PoolServer
from evproxy.upstream.waiting import WaitingLine, all_full

_BATCH = 32
"""Sessions woken, or sent away, in one turn of the reactor, where it could be all of them."""


class Queue:
    """
    Lets sessions wait in `line`, and wakes them when `selection` has room.

    `due` is the call in which it looks for room next, ``None`` if nothing has changed.

    :param reactor: calls later.
    :param overflowed: called with the reason when one more cannot wait.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        line: WaitingLine,
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
