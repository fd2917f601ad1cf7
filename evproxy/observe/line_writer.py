"""
Writes lines in a thread, so that the reactor never waits for a slow, full or stuck destination.

The reactor passes batches of lines to one thread, which writes them and does nothing else.  The
bytes that wait for the thread are bounded.  Beyond the bound, the writer drops and counts lines;
once there is room again, it writes a line with their number.

Rules: fields that wake the thread change only under the lock.  Only one thread changes each
counter; the other thread only reads it.  A line is whole or missing.  If a reopen comes in the
middle of a line, the new file gets the whole line.
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
from evproxy.observe.destinations import Destination
from evproxy.observers import LogWriterObserver

MOST_WAITING = 8 * 1024 * 1024
"""The most bytes that may wait for the thread; lines beyond are dropped."""

ROOM = MOST_WAITING // 2
"""The writer stops dropping lines once no more than this many bytes wait."""

RETRY = 1.0
"""Seconds from a failed write to the next attempt."""

QUIET = 10.0
"""Seconds without a failed write after which the log counts as written again, and a new failure is
reported."""

FLUSH_TIMEOUT = 2.0
"""Seconds at the end for writing the remaining lines."""

_SLICE = 0.1
"""Seconds that the thread waits for a destination before it checks whether to end."""


class LineWriter:
    """
    Writes lines in a thread of its own, once: from `open` to `close`.

    :param reactor: the timers, and calls from the thread.
    :param destination: where the lines go.
    :param observer: is notified of problems, in the reactor's thread.
    :param missing: formats the line that says how many lines were dropped.

    `dropped`: how many lines were dropped, from the beginning.
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
        # Only the reactor's thread changes these counters.
        self._handed = self._handed_lines = self._dropped = 0
        self.dropped = 0
        self._dropping = False
        self._closed: Deferred[None] | None = None
        self._patience: IDelayedCall | None = None
        self._calm: IDelayedCall | None = None
        # Only the writer's thread changes these counters.
        self._written = self._written_lines = 0
        self._failing = False
        self._failed_at = -QUIET

    # In the reactor's thread.

    @property
    def waiting(self) -> int:
        """How many bytes wait for the thread."""
        return self._handed - self._written

    @property
    def full(self) -> bool:
        """Whether the writer drops lines until there is room again."""
        return self._dropping

    def open(self) -> None:
        """
        Open the destination and start the thread.

        :raises OSError: if the destination cannot be opened.
        """
        self._destination.open()
        self.start()

    def start(self) -> None:
        """Start the thread; the destination is open."""
        self._thread = Thread(target=self._run, name="evproxy access log", daemon=True)
        start_without_signals(self._thread)

    def write(self, lines: bytes, count: int) -> None:
        """Write the `count` lines in `lines` soon; drop them if too many bytes wait."""
        if not self._dropping and self.waiting + len(lines) > MOST_WAITING:
            self._dropping = True
            # The thread may have written everything before `_dropping` was set, and would then
            # never call `_has_room`.
            if self.waiting <= ROOM:
                self._dropping = False
            else:
                self._observer.log_lines_dropped(self._destination.name)
        if self._dropping:
            self.drop(count)
        else:
            self._hand(lines, count)

    def drop(self, count: int) -> None:
        """Count `count` lines as dropped; the caller did not format them because of `full`."""
        self._dropped += count
        self.dropped += count

    def reopen(self) -> None:
        """Reopen the destination soon, in the thread."""
        with self._changed:
            self._reopen = True
            self._changed.notify()

    def close(self) -> Deferred[None]:
        """Write the remaining lines within `FLUSH_TIMEOUT`; the Deferred fires after that."""
        if self._thread is None:
            return succeed(None)
        assert self._closed is None
        self._closed = Deferred()
        self._stop_looking()
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
            self._stop_looking()
            self._observer.log_written_again(self._destination.name, self._say_dropped())

    def _tell_failure(self, why: str) -> None:
        self._observer.log_failed(self._destination.name, why)
        self._look_later()

    def _look_later(self) -> None:
        if self._calm is None and self._closed is None:
            self._calm = self._reactor.callLater(QUIET, self._look)

    def _look(self) -> None:
        """Say that all is written again, once no write has failed for `QUIET` seconds."""
        self._calm = None
        if self._failing or self.waiting or monotonic() - self._failed_at < QUIET:
            self._look_later()
        else:
            self._observer.log_written_again(self._destination.name, 0)

    def _stop_looking(self) -> None:
        if self._calm is not None:
            self._calm.cancel()
            self._calm = None

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
        """
        Reopen the destination.

        Bytes of `lines` before `start` are written already.

        :return: where in `lines` to go on.
        """
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
            self._reactor.callFromThread(self._tell_failure, error.strerror or str(error))
        self._failing = True
        self._failed_at = now

    def _worked(self) -> None:
        self._failing = False
        if self._dropping and self.waiting <= ROOM:
            self._reactor.callFromThread(self._has_room)

    def _tell(self, what: Callable[[str, str], None], why: str) -> None:
        self._reactor.callFromThread(what, self._destination.name, why)
