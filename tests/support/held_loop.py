"""
A ``twistd`` program that holds its loop in several ways, one after the other.

The next one comes when the watchdog has reported the one before; a way without a report is
repeated, because a busy machine may starve the process.
"""

from __future__ import annotations

import gc
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from twisted.application.service import Application, IServiceCollection, Service

from evproxy import LoopReport
from evproxy.hub import Hub
from evproxy.observe import TroubleLog, Watchdog

MOST_TRIES = 120
THRESHOLD = 0.05
PAUSE = 0.06
"""Seconds in which the loop is free, before the next hold."""


def sleep() -> None:
    time.sleep(0.2)


def slow_pattern() -> None:
    assert re.match("(a+)+$", "a" * 22 + "b") is None


def look_up() -> None:
    # In a network of its own, the process is its own name server, which never answers.
    with socket.socket(type=socket.SOCK_DGRAM) as server, suppress(OSError):
        server.bind(("127.0.0.1", 53))
        socket.getaddrinfo("blocking.example", 80)


def python() -> None:
    until = time.thread_time() + 0.2
    while time.thread_time() < until:
        sum(range(100))


def collection() -> None:
    gc.collect()


def short() -> None:
    until = time.perf_counter() + 2e-5
    while time.perf_counter() < until:
        pass


def own_thread() -> None:
    def run() -> None:
        slow_pattern()
        # Others may get the lock before the watchdog does.
        time.sleep(0.2)

    threading.Thread(target=run, name="culprit").start()


TROUBLES = {"collection": "collection", "short_calls": "calls", "own_thread": "lock"}
"""What the watchdog calls each way, where that is not a callback."""


class Holder(Service):
    """Holds the loop in each of the ways, then stops the reactor."""

    def __init__(self, reactor: Any, ways: list[str]) -> None:
        self._reactor = reactor
        self._ways = ways
        self._tries = 0
        self._heap: list[list[int]] = []

    def startService(self) -> None:
        super().startService()
        self._reactor.callWhenRunning(self._next)

    def _next(self) -> None:
        if not self._ways or self._tries == MOST_TRIES:
            self._reactor.stop()
            return
        self._tries += 1
        way = self._ways[0]
        if way == "collection" and not self._heap:
            gc.disable()
            self._heap = [[number] for number in range(2_000_000)]
        if way == "short_calls":
            for _ in range(10_000):
                self._reactor.callLater(PAUSE, short)
        elif way == "builtin":
            self._reactor.callLater(PAUSE, time.sleep, 0.2)
        else:
            hold: Callable[[], None] = globals()[way]
            self._reactor.callLater(PAUSE, hold)
        self._reactor.callLater(2 * PAUSE, self._reactor.callLater, PAUSE, self._next)

    def loop_held(self, report: LoopReport) -> None:
        """Called in the watchdog's thread."""
        self._reactor.callFromThread(self._reported, report.trouble.value)

    def loop_released(self, report: LoopReport) -> None:
        """Nothing to do: the program goes on by itself."""

    def _reported(self, trouble: str) -> None:
        if self._ways and TROUBLES.get(self._ways[0], "callback") == trouble:
            self._ways.pop(0)
            self._tries = 0


def held_by(ways: Sequence[str]) -> Any:
    """Return the application, for a ``.tac`` file; `ways` are functions of this module."""
    from twisted.internet import reactor

    application: Any = Application("held")
    holder = Holder(reactor, list(ways))
    watchdog = Watchdog(reactor, THRESHOLD, Hub([TroubleLog(), holder]))
    for service in (watchdog, holder):
        service.setServiceParent(IServiceCollection(application))
    return application
