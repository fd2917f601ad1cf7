"""
Threads of evproxy's own, for calls that block: name look-ups and reads of files.

The reactor's thread pool is for short work, and everybody shares it.  A look-up that the
name servers leave unanswered holds a thread for 10 seconds and more, a file on a dead
network mount for ever.  Here such calls hold up only what waits for the same `Threads`.

A thread exists only while it has something to do, and is a daemon: the end of the process
waits for no call.
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
"""Calls that wait for a thread in one line; one more is refused."""

_FAULTS = {signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV}

T = TypeVar("T")


def start_without_signals(thread: threading.Thread) -> None:
    """
    Start `thread` with all signals blocked, so that they go to other threads.

    Else a signal that the reactor's thread blocks for a moment goes to `thread`, and its handler
    runs in the reactor's thread all the same.

    :raises RuntimeError: if no more threads can be started.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _FAULTS)
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class NoThread(EvproxyError):
    """There is no thread for a call: too many wait already, or no more can be started."""


class Call(Generic[T]):
    """
    A call that a thread makes, or that waits for one.

    `result` fires in the reactor's thread.  Cancelling it takes a call out of the line;
    the outcome of one that runs already is dropped.
    """

    def __init__(self, threads: Threads, work: Callable[[], T], first: bool) -> None:
        self._threads = threads
        self.work = work
        self.first = first
        self.result: Deferred[T] = Deferred(self._cancelled)
        self._dropped = False

    def hurry(self) -> None:
        """Go into the line of those that come first, if this call still waits."""
        self._threads.hurry(self)

    def finish(self, outcome: T | Failure) -> None:
        """The call was made.  In the reactor's thread."""
        if not self._dropped:
            self.result.callback(outcome)

    def _cancelled(self, result: Deferred[T]) -> None:
        self._dropped = True
        self._threads.forget(self)


class Threads:
    """
    Makes calls in threads, a bounded number at once; all others wait in one of two lines.

    Used in the reactor's thread only.

    :param reactor: the outcomes come in its thread.
    :param name: what the threads are called.
    :param most: how many threads there may be.
    :param kept: how many of them only make calls that come first.
    """

    def __init__(self, reactor: IReactorFromThreads, name: str, most: int, kept: int = 0) -> None:
        self._reactor = reactor
        self._name = name
        self._most = most
        self._most_ordinary = most - kept
        # What follows is shared with the threads.
        self._lock = threading.Lock()
        self._first: deque[Call[Any]] = deque()
        self._ordinary: deque[Call[Any]] = deque()
        self._running = 0
        self._running_ordinary = 0

    def call(self, work: Callable[[], T], first: bool = False) -> Call[T]:
        """
        Have a thread call `work`, which may block.

        :param first: go before all calls that do not.

        The result fails with what `work` raises, or with `NoThread`.
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
        """`call` goes first, if it still waits."""
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
        """`call` need not be made any more."""
        with self._lock, suppress(ValueError):
            (self._first if call.first else self._ordinary).remove(call)

    def _next(self) -> Call[Any] | None:
        """The call to make now, if one waits and a thread is free for it.  With the lock."""
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
                # Whatever it is, it belongs to who asked, as `deferToThread` has it.
                outcome = Failure()
            # An event loop that is closed takes nothing any more, and nobody waits either.
            with suppress(RuntimeError):
                self._reactor.callFromThread(call.finish, outcome)
            with self._lock:
                self._made(call)
                call = self._next()
