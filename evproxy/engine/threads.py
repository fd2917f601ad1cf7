"""
Threads of evproxy's own, for calls that block: name look-ups and reads of files.

The reactor's thread pool is for short work, and all code shares it.  A look-up without an answer
holds a thread for 10 seconds or more, a file on a dead network mount holds one for ever.  Such
calls delay only the calls of the same `Threads`.

A thread exists only while it has something to do.  It is a daemon: the end of the process does not
wait for a call.
"""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from evproxy.errors import EvproxyError

WAITING = 1024
"""The most calls that wait for a thread in one line; a further call is refused."""

_FAULTS = {signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV}

T = TypeVar("T")


def start_without_signals(thread: threading.Thread) -> None:
    """
    Start `thread` with all signals blocked, so that they go to other threads.

    Otherwise a signal that the reactor's thread blocks for a moment goes to `thread`, and its
    handler still runs in the reactor's thread.

    :raises RuntimeError: if no more threads can be started.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _FAULTS)
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class NoThread(EvproxyError):
    """There is no thread for a call: too many calls wait, or no thread can be started."""


class Call(Generic[T]):
    """
    A call that a thread makes, or that waits for a thread.

    `result` fires in the reactor's thread.  If it is cancelled, a waiting call leaves its line, and
    the outcome of a running call is discarded.
    """

    def __init__(self, threads: Threads, work: Callable[[], T], first: bool) -> None:
        self._threads = threads
        self.work = work
        self.first = first
        self.result: Deferred[T] = Deferred(self._cancelled)
        self._dropped = False

    def hurry(self) -> None:
        """Move to the line of the calls that come first, if this call still waits."""
        self._threads.hurry(self)

    def finish(self, outcome: T | Failure) -> None:
        """The call was made.  Runs in the reactor's thread."""
        if not self._dropped:
            self.result.callback(outcome)

    def _cancelled(self, result: Deferred[T]) -> None:
        self._dropped = True
        self._threads.forget(self)


class Threads:
    """
    Makes calls in a bounded number of threads; other calls wait in one of two lines.

    Use it in the reactor's thread only.

    :param reactor: the outcomes come in its thread.
    :param name: the name of the threads.
    :param most: how many threads there may be.
    :param kept: how many of the threads make only calls that come first.
    """

    def __init__(self, reactor: IReactorFromThreads, name: str, most: int, kept: int = 0) -> None:
        self._reactor = reactor
        self._name = name
        self._most = most
        self._most_ordinary = most - kept
        # The threads share the following attributes.
        self._lock = threading.Lock()
        self._first: deque[Call[Any]] = deque()
        self._ordinary: deque[Call[Any]] = deque()
        self._running = 0
        self._running_ordinary = 0

    def call(self, work: Callable[[], T], first: bool = False) -> Call[T]:
        """
        Let a thread call `work`, which may block.

        :param first: go before all calls that do not come first.

        The result fails with the exception of `work`, or with `NoThread`.
        """
        call = Call(self, work, first)
        with self._lock:
            line = self._first if first else self._ordinary
            full = len(line) >= WAITING
            if not full:
                line.append(call)
            next_call = None if full else self._next()
        if full:
            call.result.errback(NoThread(f"{WAITING} calls wait for a thread already"))
        elif next_call is not None:
            self._start(next_call)
        return call

    def hurry(self, call: Call[Any]) -> None:
        """Move `call` to the line of the calls that come first, if it still waits."""
        with self._lock:
            if call.first or call not in self._ordinary:
                return
            self._ordinary.remove(call)
            call.first = True
            self._first.append(call)
            next_call = self._next()
        if next_call is not None:
            self._start(next_call)

    def forget(self, call: Call[Any]) -> None:
        """Do not make `call` any more."""
        with self._lock, suppress(ValueError):
            (self._first if call.first else self._ordinary).remove(call)

    def _next(self) -> Call[Any] | None:
        """Return the call to make now, if one waits and a thread is free.  Needs the lock."""
        if self._running >= self._most:
            return None
        if self._first:
            call = self._first.popleft()
        elif self._ordinary and self._running_ordinary < self._most_ordinary:
            call = self._ordinary.popleft()
            self._running_ordinary += 1
        else:
            return None
        self._running += 1
        return call

    def _start(self, call: Call[Any]) -> None:
        thread = threading.Thread(target=self._work, args=(call,), name=self._name, daemon=True)
        try:
            start_without_signals(thread)
        except RuntimeError:
            with self._lock:
                self._made(call)
            call.result.errback(NoThread("no more threads can be started"))

    def _made(self, call: Call[Any]) -> None:
        self._running -= 1
        if not call.first:
            self._running_ordinary -= 1

    def _work(self, call: Call[Any] | None) -> None:
        """What a thread does: make calls until none is left for it."""
        while call is not None:
            try:
                outcome = call.work()
            except BaseException:
                # Any exception goes to the caller, as with `deferToThread`.
                outcome = Failure()
            # A closed event loop takes no more calls, and nobody waits for the outcome.
            with suppress(RuntimeError):
                self._reactor.callFromThread(call.finish, outcome)
            with self._lock:
                self._made(call)
                call = self._next()
