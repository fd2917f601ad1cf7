"""
Lines on their way to a destination that may be slow, full or stuck: nothing here makes the
reactor wait for it.

A batch of lines is handed to one thread, which writes and does nothing else.  What waits for
it is bounded; beyond that, lines are dropped and counted, and a line says how many once there
is room again.

Rules: what wakes the thread changes under the lock; what is counted is counted by one thread
alone, and only read by the other.  A line is whole or missing, unless its file was left in the
middle of it: then it is whole in the next one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Condition, Thread
from time import monotonic
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall

from evproxy.engine.threads import start_without_signals
from evproxy.interfaces import LogWriterObserver
from evproxy.observe.destinations import Destination

MOST_WAITING = 8 * 1024 * 1024
"""Bytes that may wait to be written; what does not fit is dropped."""

ROOM = MOST_WAITING // 2
"""Once no more bytes than these wait, lines are taken again after some were dropped."""

RETRY = 1.0
"""Seconds from a failure to the next try."""

QUIET = 10.0
"""Seconds without a failure before another is told."""

FLUSH_TIMEOUT = 2.0
"""Seconds at the end in which what waits can be written."""

_SLICE = 0.1
"""Seconds that the thread waits for a destination before it looks whether it is to end."""


class LineWriter:
    """
    Writes lines in a thread of its own, once: from `open` to `close`.

    :param reactor: calls later, and from the thread.
    :param destination: where they go.
    :param observer: hears what goes wrong, in the reactor's thread.
    :param missing: makes the line that says how many were dropped.
    """

    def __init__(
        self,
        reactor: Any,
        destination: Destination,
        observer: LogWriterObserver,
        missing: Callable[[int], bytes],
    ) -> None:
        self._reactor = reactor
        self._destination = destination
        self._observer = observer
        self._missing = missing
        self._thread: Thread | None = None
        self._changed = Condition()
        self._batches: deque[bytes] = deque()
        self._reopen = self._closing = self._abandoned = False
        # Counted by the reactor's thread.
        self._handed = self._handed_lines = self._dropped = 0
        self._dropping = False
        self._closed: Deferred[None] | None = None
        self._patience: IDelayedCall | None = None
        # Counted by the writer's.
        self._written = self._written_lines = 0
        self._failing = False
        self._failed_at = -QUIET

    # In the reactor's thread.

    @property
    def waiting(self) -> int:
        """How many bytes wait."""
        return self._handed - self._written

    @property
    def full(self) -> bool:
        """Whether lines are dropped until there is room again."""
        return self._dropping

    def open(self) -> None:
        """
        Begin.

        :raises OSError: if the destination cannot be opened.
        """
        self._destination.open()
        self._thread = Thread(target=self._run, name="evproxy access log", daemon=True)
        start_without_signals(self._thread)

    def write(self, lines: bytes, count: int) -> None:
        """Write `lines`, of which there are `count`, soon; or drop them, if too much waits."""
        if not self._dropping and self.waiting + len(lines) > MOST_WAITING:
            self._dropping = True
            # The thread may have written all of it before it could see that.
            if self.waiting <= ROOM:
                self._dropping = False
            else:
                self._observer.log_lines_dropped(self._destination.name)
        if self._dropping:
            self._dropped += count
        else:
            self._hand(lines, count)

    def drop(self, count: int) -> None:
        """Count as many lines as dropped, which were not even made: it was full."""
        self._dropped += count

    def reopen(self) -> None:
        """Soon, go on in the file that has the name now."""
        with self._changed:
            self._reopen = True
            self._changed.notify()

    def close(self) -> Deferred[None]:
        """Write what waits, for `FLUSH_TIMEOUT` at the most; fires when that is over."""
        if self._thread is None:
            return succeed(None)
        assert self._closed is None
        self._closed = Deferred()
        if self._dropping:
            self._say_dropped()
        self._patience = self._reactor.callLater(FLUSH_TIMEOUT, self._give_up)
        with self._changed:
            self._closing = True
            self._changed.notify()
        return self._closed

    def _hand(self, lines: bytes, count: int) -> None:
        self._handed += len(lines)
        self._handed_lines += count
        with self._changed:
            self._batches.append(lines)
            self._changed.notify()

    def _say_dropped(self) -> int:
        dropped, self._dropped = self._dropped, 0
        self._dropping = False
        self._hand(self._missing(dropped), 1)
        return dropped

    def _has_room(self) -> None:
        if self._dropping and self._closed is None:
            self._observer.log_written_again(self._destination.name, self._say_dropped())

    def _give_up(self) -> None:
        self._patience = None
        with self._changed:
            self._abandoned = True
            self._changed.notify()
        self._over()

    def _ended(self, thread: Thread) -> None:
        thread.join()
        if thread is self._thread:
            self._over()

    def _over(self) -> None:
        self._thread = None
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        lost = self._handed_lines - self._written_lines
        if lost:
            self._observer.log_lines_lost(self._destination.name, lost)
        closed = self._closed
        if closed is not None:
            closed.callback(None)

    # In the writer's thread.

    def _run(self) -> None:
        thread = self._thread
        try:
            while (lines := self._next()) is not None:
                self._write(lines)
        finally:
            self._destination.close()
            self._reactor.callFromThread(self._ended, thread)

    def _next(self) -> bytes | None:
        while True:
            with self._changed:
                while not (self._batches or self._reopen or self._closing):
                    self._changed.wait()
                if not self._reopen:
                    return self._batches.popleft() if self._batches else None
            self._reopen_now(b"", 0)

    def _write(self, lines: bytes) -> None:
        start = 0
        while start < len(lines) and not self._abandoned:
            if self._reopen:
                start = self._reopen_now(lines, start)
            last_try = self._closing
            try:
                if not self._destination.ready(_SLICE):
                    continue
                count = self._destination.write(lines, start)
            except BlockingIOError:
                self._pause(_SLICE)
            except OSError as error:
                self._failed(error)
                if last_try:
                    self._abandoned = True
                self._pause(RETRY)
            else:
                self._written += count
                self._written_lines += lines.count(b"\n", start, start + count)
                start += count
                self._worked()

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._reopen or self._closing, seconds)

    def _reopen_now(self, lines: bytes, start: int) -> int:
        """Open it anew; where in `lines` to go on, of which those up to `start` are written."""
        self._reopen = False
        try:
            other = self._destination.reopen()
        except OSError as error:
            self._tell(self._observer.log_not_reopened, error.strerror or str(error))
            return start
        if not other:
            return start
        line = lines.rfind(b"\n", 0, start) + 1
        self._written -= start - line
        return line

    def _failed(self, error: OSError) -> None:
        now = monotonic()
        if not self._failing and now - self._failed_at >= QUIET:
            self._tell(self._observer.log_failed, error.strerror or str(error))
        self._failing = True
        self._failed_at = now

    def _worked(self) -> None:
        self._failing = False
        if self._dropping and self.waiting <= ROOM:
            self._reactor.callFromThread(self._has_room)

    def _tell(self, what: Callable[[str, str], None], why: str) -> None:
        self._reactor.callFromThread(what, self._destination.name, why)
