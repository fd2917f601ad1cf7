"""
The reactor's own epoll object, found without its private names.

Linux lists in ``/proc/self/fdinfo`` what an epoll object watches (proc_pid_fdinfo(5)).  The
reactor's is the one that watches a reader until that is taken out of the reactor.
"""

from __future__ import annotations

import os
from typing import Any

FOLDER = "/proc/self/fdinfo"
"""Has a file for each descriptor of this process; missing under ``twistd --chroot``."""


def find(reactor: Any, reader: Any) -> int | None:
    """
    The descriptor of the epoll object that `reactor` waits in; ``None`` if that cannot be told.

    Only Twisted's epoll reactor is looked into.  Others that wait in an epoll object, asyncio's
    for one, have timers that ``reactor.timeout()`` does not know of.

    :param reader: one that the reactor watches; it is taken out of the reactor.
    """
    # Not at the top: where there is no epoll, it cannot be imported.
    from twisted.internet.epollreactor import EPollReactor

    # Nor one that is derived from it, whose main loop may be another.
    if type(reactor) is not EPollReactor:
        return None
    descriptor = reader.fileno()
    watching = _watching(descriptor)
    reactor.removeReader(reader)
    # A number may be left of another file, in an epoll object that has nothing to do with this.
    watching -= _watching(descriptor)
    return watching.pop() if len(watching) == 1 else None


def _watching(descriptor: int) -> set[int]:
    """The epoll objects of this process that watch `descriptor`."""
    found = set()
    try:
        for name in os.listdir(FOLDER):
            if descriptor in _targets(f"{FOLDER}/{name}"):
                found.add(int(name))
    except OSError:
        return set()
    return found


def _targets(path: str) -> set[int]:
    """What the descriptor that `path` tells of watches; nothing, if it is no epoll object."""
    try:
        with open(path) as file:
            return {int(line.split()[1]) for line in file if line.startswith("tfd:")}
    except FileNotFoundError:
        # A thread has closed it meanwhile, or it was that of the folder.
        return set()
