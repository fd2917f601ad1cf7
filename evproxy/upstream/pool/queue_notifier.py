"""
Notifies the sessions in a pool's queue when a server has a free slot.

A slot that a session frees goes to the first session in the queue at once.  After any other
change (a server came up, or joined), the notifier looks for room in the next turn of the
reactor.

The notifier passes through the queue from front to end, `_BATCH` sessions in a turn.  A change
during a pass causes another pass.  So sessions at the front that cannot use a slot do not keep
it from the sessions behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from evproxy.errors import NoServerAvailable, QueueFull
from evproxy.interfaces import Server, Waiter
from evproxy.model import ConnectionInfo
from evproxy.upstream.pool.queue import Queue, why_full
from evproxy.upstream.pool.selection import Selection
from evproxy.upstream.pool.server import PoolServer

_BATCH = 32
"""The most sessions that are notified, or give up, in one turn of the reactor."""


class QueueNotifier:
    """
    Lets sessions wait in `queue`, and notifies them when `selection` has room.

    `due` is the next call that looks for room; ``None`` if nothing has changed.

    :param reactor: the timers.
    :param overflowed: called with the reason when a session cannot wait because of a full queue.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        queue: Queue,
        selection: Selection,
        overflowed: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._queue = queue
        self._selection = selection
        self._overflowed = overflowed
        self._notifying = False
        self._has_room: Callable[[], bool] = selection.has_any_room
        self._notify_restricted = False
        self._after = 0
        self._changed = False
        self._again = False
        self.due: IDelayedCall | None = None

    @property
    def waiting(self) -> int:
        """How many sessions wait."""
        return self._queue.waiting

    @property
    def still_waiting(self) -> int:
        """How many sessions wait, without the one that may have a slot already."""
        return self._queue.still_waiting

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
        why_not = selection.why_not_wait(info, tried)
        if why_not:
            raise NoServerAvailable(why_not)
        restricted = selection.restricted or bool(tried)
        place = self._queue.join(ready, gave_up, restricted)
        if place is None:
            waiting = self._queue.waiting
            queue = f"so is the queue ({waiting} waiting)" if waiting else "there is no queue"
            why_not = f"{why_full(restricted)}, and {queue}"
            self._overflowed(why_not)
            raise QueueFull(why_not)
        return place

    def has_precedence(self) -> bool:
        """Whether sessions in the queue, notified in the next turn, go before a new session."""
        return self._queue.waiting > 0 and self._queue.has_place and not self._notifying

    def freed(self, server: PoolServer) -> None:
        """`server` was full, and now has a free slot."""
        if not self._queue.waiting:
            return
        # A notified session may fail, and free its slot, before its `ready` returns.
        if self._notifying or self._after:
            self._again = True
            return
        self._has_room = lambda: self._selection.has_room(server)
        self._notify_restricted = False
        self._notify_next()

    def notify_soon(self) -> None:
        """A server has changed: waiting sessions may get a slot, or have to give up."""
        self._changed = True
        self._schedule()

    def stop(self, why: str) -> None:
        """Cancel the timer, and make all sessions give up with the reason `why`."""
        if self.due is not None:
            self.due.cancel()
            self.due = None
        self._after = 0
        self._changed = self._again = False
        self._queue.dissolve(why, self._queue.waiting)

    def _schedule(self) -> None:
        if self._queue.waiting and self.due is None:
            self.due = self._reactor.callLater(0, self._look_for_room)

    def _look_for_room(self) -> None:
        self.due = None
        selection = self._selection
        if selection.stale:
            selection.refresh()
        if not (selection.usable or selection.panic):
            if not selection.exhausted_announced:
                selection.announce_exhausted()
            self._after = 0
            self._queue.dissolve(selection.why_exhausted(), _BATCH)
            self._schedule()
            return
        if not self._after:
            self._has_room = selection.has_any_room
            self._notify_restricted = self._changed
            self._changed = self._again = False
        self._notify_next()

    def _notify_next(self) -> None:
        """Begin a pass, or continue it."""
        self._notifying = True
        try:
            self._after = self._queue.notify(
                self._has_room, self._notify_restricted, _BATCH, self._after
            )
        finally:
            self._notifying = False
        if self._after or self._changed or self._again:
            self._schedule()
