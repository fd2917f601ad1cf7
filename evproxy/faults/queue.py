"""
A link that holds bytes, the end and the loss in a queue, and passes them on in their time.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from math import inf

from twisted.internet.interfaces import IDelayedCall

from evproxy.faults.link import Link, Surroundings
from evproxy.faults.timing import Timing
from evproxy.settings.fault import FaultSettings

EACH_TURN = 16
"""The most pieces that one link passes on in one turn of the reactor."""


class Mark(Enum):
    """What follows the bytes in a queue."""

    END = "end"
    LOST = "lost"
    CLOSE = "close"
    RESET = "reset"


class QueueLink(Link):
    """
    A link that passes everything on in its time.

    :param timing: says when.
    """

    def __init__(self, fault: FaultSettings, around: Surroundings, timing: Timing) -> None:
        super().__init__(fault, around)
        self._timing = timing
        # What waits, when it came, and whether the fault was active then.
        self._queue: deque[tuple[bytes | Mark, float, bool]] = deque()
        self._due: float | None = None
        self._size = 0
        self._timer: IDelayedCall | None = None
        self.held = 0

    def take(self, data: bytes) -> None:
        self._add(data, True)

    def take_end(self) -> None:
        self._add(Mark.END, True)

    def take_lost(self) -> None:
        self._add(Mark.LOST, True)

    def take_close(self, reset: bool) -> None:
        self._add(Mark.RESET if reset else Mark.CLOSE, True)

    def skip_close(self, reset: bool) -> None:
        self._add(Mark.RESET if reset else Mark.CLOSE, False)

    def skip(self, data: bytes) -> None:
        self._add(data, False)

    def skip_end(self) -> None:
        self._add(Mark.END, False)

    def skip_lost(self) -> None:
        self._add(Mark.LOST, False)

    def release(self) -> None:
        self._cancel()
        self._due = None
        while self._queue and not self._over:
            self._pass(len(self._queue[0][0]) if isinstance(self._queue[0][0], bytes) else 0)

    def leave_window(self) -> None:
        # What follows would wait for ever behind bytes that never go.
        if self._queue and self._first_due() == inf:
            self.release()

    def close(self) -> None:
        super().close()
        self._cancel()
        self._queue.clear()
        self.held = 0

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _add(self, what: bytes | Mark, active: bool) -> None:
        self._queue.append((what, self.around.clock.seconds(), active))
        if isinstance(what, bytes):
            self.held += len(what)
        if len(self._queue) == 1:
            self._go_on()

    def _go_on(self) -> None:
        """Pass on what is due, and come back for the rest."""
        self._timer = None
        now = self.around.clock.seconds()
        for _ in range(1 if self._timing.one_each_turn else EACH_TURN):
            if not self._queue:
                return
            due = self._first_due()
            if due > now:
                if due < inf:
                    self._timer = self.around.clock.callLater(due - now, self._go_on)
                return
            self._due = None
            self._pass(self._size)
            if self._over:
                return
        if self._queue and self._timer is None:
            self._timer = self.around.clock.callLater(0, self._go_on)

    def _first_due(self) -> float:
        """When the first piece goes; decided once for each."""
        if self._due is None:
            what, arrived, active = self._queue[0]
            if isinstance(what, Mark):
                self._due, self._size = (self._timing.end(arrived) if active else arrived), 0
            elif active:
                self._due, self._size = self._timing.piece(arrived, len(what))
            else:
                self._due, self._size = arrived, len(what)
        return self._due

    def _pass(self, size: int) -> None:
        what, arrived, active = self._queue.popleft()
        if what is Mark.END:
            self.to.end()
        elif what is Mark.LOST:
            self.to.lost()
        elif isinstance(what, Mark):
            self.to.close_session(what is Mark.RESET)
        else:
            assert isinstance(what, bytes)
            piece, rest = what[:size], what[size:]
            if rest:
                self._queue.appendleft((rest, arrived, active))
            self.held -= len(piece)
            self.to.feed(piece)
            # A link behind this one may have dropped the piece.
            self.around.freed()
