"""
One event loop for each core: processes that share a port (SO_REUSEPORT), as nginx's workers may.

Teaches: how event loops use every core.  The kernel gives each new connection to one of the
processes, which share nothing.  ``evproxy --workers`` does this, and adds what the processes must
share: limits, health checks, metrics.

Fails: the kernel does not know how busy a process is, so connections are spread unevenly, and a
callback that computes delays all connections of its process while another process is idle.
"""

from __future__ import annotations

import os
import signal

from . import loop_epoll
from .listening import Address, Hook


def serve(address: Address, upstream: Address, hook: Hook | None) -> None:
    """Run a loop in a child for each core; SIGQUIT goes to each of the children."""
    children = []
    for _ in os.sched_getaffinity(0):
        if (child := os.fork()) == 0:
            loop_epoll.serve(address, upstream, hook, shared=True)
            os._exit(0)
        children.append(child)

    def quit_cb(*_: object) -> None:
        for child in children:
            os.kill(child, signal.SIGQUIT)

    signal.signal(signal.SIGQUIT, quit_cb)
    for child in children:
        os.waitpid(child, 0)
