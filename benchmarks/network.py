"""Loopback ports: which one is free, and when somebody listens on it.

Ports are taken below the kernel's ephemeral range, so that no outgoing connection
can be in the way, and none is used twice in a run: every measure meets a clean
table of (address, port) pairs whatever the one before it left in TIME_WAIT.
"""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable
from pathlib import Path

LOOPBACK = "127.0.0.1"
_LISTEN = "0A"  # TCP_LISTEN in include/net/tcp_states.h
_ports = itertools.cycle(range(12000, 32000))


def free_port() -> int:
    """The next loopback port that can be bound.

    Raises:
        RuntimeError: twenty thousand ports in a row are taken.
    """
    for port in itertools.islice(_ports, 20000):
        with socket.socket() as candidate:
            try:
                candidate.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free loopback port")


def wait_until(ready: Callable[[], bool], what: str, timeout: float = 15.0) -> None:
    """Ask ``ready`` every few milliseconds until it says yes.

    Raises:
        TimeoutError: it did not within ``timeout`` seconds; the message names ``what``.
    """
    deadline = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout:g} s")
        time.sleep(0.005)


def is_listening(port: int) -> bool:
    """Whether the kernel would complete a connection to this port.

    The kernel's table is asked instead of connecting, because a connection through a
    proxy is one to its upstream too, and iperf3 takes any connection for a test.
    """
    local = f":{port:04X}"
    with Path("/proc/net/tcp").open() as table:
        next(table)
        return any(
            fields[3] == _LISTEN and fields[1].endswith(local) for fields in map(str.split, table)
        )
