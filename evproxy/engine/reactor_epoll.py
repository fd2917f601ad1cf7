"""
Finds the reactor's own epoll object, without the private names of the reactor.

Linux lists in ``/proc/self/fdinfo`` what an epoll object watches (proc_pid_fdinfo(5)).  The
reactor's object is the one that watches a reader until the reader is removed from the reactor.
"""

from __future__ import annotations

import os
from typing import Any

FOLDER = "/proc/self/fdinfo"
"""A folder with a file for each descriptor of this process; none under ``twistd --chroot``."""


def find(reactor: Any, reader: Any) -> int | None:
    """
    Return the descriptor of the epoll object in which `reactor` waits; ``None`` if not found.

    This works only for Twisted's epoll reactor.  Other reactors that wait in an epoll object, for
    example asyncio's, have timers that ``reactor.timeout()`` does not know.

    :param reader: a reader that the reactor watches; it is removed from the reactor.
    """
    # Not at the top of the module: on a system without epoll, the import fails.
    from twisted.internet.epollreactor import EPollReactor

    # Not a subclass either, which may have another main loop.
    if type(reactor) is not EPollReactor:
        return None
    descriptor = reader.fileno()
    watching = _watching(descriptor)
    reactor.removeReader(reader)
    # An unrelated epoll object may list the same number, of a file that was closed.
    watching -= _watching(descriptor)
    return watching.pop() if len(watching) == 1 else None


def _watching(descriptor: int) -> set[int]:
    """Return the epoll objects of this process that watch `descriptor`."""
    found = set()
    try:
        for name in os.listdir(FOLDER):
            if descriptor in _targets(f"{FOLDER}/{name}"):
                found.add(int(name))
    except OSError:
        return set()
    return found


def _targets(path: str) -> set[int]:
    """Return what the descriptor behind `path` watches; nothing if it is not an epoll object."""
    try:
        with open(path) as file:
            return {int(line.split()[1]) for line in file if line.startswith("tfd:")}
    except FileNotFoundError:
        # A thread has closed the descriptor, or it was the descriptor of the folder.
        return set()
