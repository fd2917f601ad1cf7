"""
Finds leftovers of a test in the process: a test may leave nothing behind.

This module only compares a reactor and a log; `conftest` decides when.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from attrs import define, field, frozen
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from zope.interface import implementer

KINDS_OF_DESCRIPTOR = ("socket:", "pipe:", "anon_inode:")

POOL_THREADS = "PoolThread-"
"""The name of the threads in the reactor's pool, which stay for the next call."""

ANNOUNCEMENT = "Unhandled error in Deferred:"
"""Twisted logs this line separately, right before the event with the failure."""


def open_descriptors() -> frozenset[tuple[int, str]]:
    """Each open socket, pipe and epoll of this process with its number; empty without /proc."""
    found = set()
    try:
        numbers = os.listdir("/proc/self/fd")
    except FileNotFoundError:
        return frozenset()
    for number in numbers:
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            continue
        if target.startswith(KINDS_OF_DESCRIPTOR):
            found.add((int(number), target))
    return frozenset(found)


@frozen
class Holdings:
    """The objects that a reactor and the process hold at one moment."""

    delayed_calls: frozenset[Any]
    readers: frozenset[Any]
    writers: frozenset[Any]
    descriptors: frozenset[tuple[int, str]]
    threads: frozenset[threading.Thread]

    @classmethod
    def of(cls, reactor: Any) -> Holdings:
        """Return what `reactor`, which must be running, and this process hold now."""
        return cls(
            delayed_calls=frozenset(reactor.getDelayedCalls()),
            readers=frozenset(reactor.getReaders()),
            writers=frozenset(reactor.getWriters()),
            descriptors=open_descriptors(),
            threads=frozenset(
                each for each in threading.enumerate() if not each.name.startswith(POOL_THREADS)
            ),
        )

    def beyond(self, before: Holdings) -> list[str]:
        """Return one line for each object that `before` did not hold."""
        return [
            *(f"delayed call: {call}" for call in self.delayed_calls - before.delayed_calls),
            *(f"reader: {reader}" for reader in self.readers - before.readers),
            *(f"thread: {thread.name}" for thread in self.threads - before.threads),
            *(f"writer: {writer}" for writer in self.writers - before.writers),
            *(
                f"descriptor {number}: {target}"
                for number, target in sorted(self.descriptors - before.descriptors)
            ),
        ]


@implementer(ILogObserver)
@define
class LoggedErrors:
    """
    A log observer that keeps every event at level ``error`` and above.

    These include the failure of a Deferred without an errback, once the Deferred is collected.
    """

    _events: list[LogEvent] = field(factory=list, init=False)

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level")
        if level is None or level < LogLevel.error or event.get("log_format") == ANNOUNCEMENT:
            return
        self._events.append(event)

    def flush(self, *types: type[BaseException]) -> list[LogEvent]:
        """
        Remove and return the events whose ``log_failure`` is of one of `types`.

        Without `types`, remove all events.  Events that are left fail the test.
        """
        taken: list[LogEvent] = []
        left: list[LogEvent] = []
        for event in self._events:
            failure = event.get("log_failure")
            wanted = not types or (failure is not None and failure.check(*types))
            (taken if wanted else left).append(event)
        self._events = left
        return taken

    def describe(self) -> list[str]:
        """Return one entry for each remaining event, with its traceback, if any."""
        lines = []
        for event in self._events:
            line = f"logged error: {formatEvent(event)}"
            if "log_failure" in event:
                line += "\n" + event["log_failure"].getTraceback()
            lines.append(line)
        return lines
