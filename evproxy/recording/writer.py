"""
Writes recordings in a thread, so that the reactor never waits for a slow, full or stuck disk.

The reactor's thread appends events to a queue, and one thread takes them from it, makes the bytes
and writes them.  The thread exists only while there is something to write.  Rule: only one thread
changes each counter; the other thread only reads it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from evproxy.engine.threads import NoThread, Threads
from evproxy.recording.file import RecordingFile
from evproxy.wire.recording import Event

MOST_WAITING = 64 * 1024 * 1024
"""The most bytes of all sessions that wait for the thread; a recording that adds more stops."""

EVENT = 256
"""The bytes for which an event counts, beside those that were sent."""

BATCH = 1024 * 1024
"""The thread takes events of about so many bytes from the queue at a time."""

FLUSH_TIMEOUT = 2.0
"""Seconds at the end for writing what waits."""

_log = Logger()

Stopped = Callable[[RecordingFile, str], None]


class RecordingWriter:
    """
    Writes recordings until it is closed; use it in the reactor's thread only.

    :param reactor: the timers, and calls from the thread.
    :param stopped: is called when a recording stops, with the reason.
    :param most_waiting: the most bytes that wait for the thread.
    """

    def __init__(self, reactor: Any, stopped: Stopped, most_waiting: int = MOST_WAITING) -> None:
        self._most_waiting = most_waiting
        self._reactor = reactor
        self._stopped = stopped
        self._threads = Threads(reactor, "evproxy recordings", 1)
        self._queue: deque[tuple[RecordingFile, Event]] = deque()
        self._running = False
        self._handed = 0
        self._closed: Deferred[None] | None = None
        self._patience: IDelayedCall | None = None
        # Only the writer's thread changes this counter, and what it has taken from the queue.
        self._written = 0
        self._taken: dict[RecordingFile, list[Event]] = {}

    @property
    def waiting(self) -> int:
        """How many bytes wait for the thread."""
        return self._handed - self._written

    def write(self, file: RecordingFile, event: Event) -> bool:
        """Write `event` soon; return whether there is room for it.  There is if it has no bytes."""
        size = len(event.data) + EVENT
        if event.data and self.waiting + size > self._most_waiting:
            return False
        self._handed += size
        self._queue.append((file, event))
        if not self._running:
            self._run()
        return True

    def close(self) -> Deferred[None]:
        """Return a Deferred that fires when all is written, or after `FLUSH_TIMEOUT`."""
        if not self._running:
            return succeed(None)
        if self._closed is None:
            self._closed = Deferred()
            self._patience = self._reactor.callLater(FLUSH_TIMEOUT, self._give_up)
        closed: Deferred[None] = Deferred()
        self._closed.addCallback(lambda _: closed.callback(None))
        return closed

    def _give_up(self) -> None:
        self._patience = None
        _log.warn("The recordings of the last sessions are not whole: the disk is too slow")
        self._over()

    def _over(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        closed, self._closed = self._closed, None
        if closed is not None:
            closed.callback(None)

    def _run(self) -> None:
        self._running = True
        self._threads.call(self._write_all).result.addCallbacks(self._idle, self._failed)

    def _idle(self, _: object) -> None:
        self._running = False
        if self._queue:
            self._run()
        else:
            self._over()

    def _failed(self, failure: Failure) -> None:
        """The thread could not run, or broke: no recording with events that are left is whole."""
        if not failure.check(NoThread):
            _log.failure("The writer of recordings broke", failure)
        self._running = False
        files = {file for file, _ in self._queue} | set(self._taken)
        self._queue.clear()
        self._taken = {}
        self._written = self._handed
        for file in files:
            file.stopped = True
            self._stopped(file, failure.getErrorMessage())
        self._over()

    # In the writer's thread.

    def _write_all(self) -> None:
        while taken := self._next():
            self._taken = taken
            for file, events in tuple(taken.items()):
                why = file.write(events)
                del taken[file]
                self._written += sum(len(event.data) + EVENT for event in events)
                if why:
                    # A closed event loop takes no more calls.
                    with suppress(RuntimeError):
                        self._reactor.callFromThread(self._stopped, file, why)

    def _next(self) -> dict[RecordingFile, list[Event]]:
        batch: dict[RecordingFile, list[Event]] = {}
        size = 0
        while size < BATCH and self._queue:
            file, event = self._queue.popleft()
            batch.setdefault(file, []).append(event)
            size += len(event.data) + EVENT
        return batch
