"""SIGQUIT wakes an event loop up: it writes a byte to a socket that the loop watches."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def woken_by_sigquit() -> Iterator[socket.socket]:
    """A socket that is readable after SIGQUIT (``signal.set_wakeup_fd``)."""
    woken, wakes = socket.socketpair()
    with woken, wakes:
        wakes.setblocking(False)
        signal.set_wakeup_fd(wakes.fileno())
        signal.signal(signal.SIGQUIT, lambda *_: None)
        yield woken
        signal.set_wakeup_fd(-1)
