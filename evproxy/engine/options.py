"""
The options that every proxied TCP socket has: no delay, and keepalive.

What a socket inherits from its listening one costs nothing.  One that connects needs a
system call for each option, so those that do not count before the keepalive's first probe
is near are set when the session is looked at for the first time (`End.set_late_options`).
"""

from __future__ import annotations

import socket
from socket import SocketType

from evproxy.settings import Keepalive

Options = tuple[tuple[int, int, int], ...]
"""Levels, names and values, as setsockopt(2) wants them."""


LASTING = 10.0
"""Seconds after which a session is looked at for the first time, and counts as one that lasts."""

SWITCHES: Options = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
)
"""What counts from the beginning."""


def timing(keepalive: Keepalive) -> Options:
    """When `keepalive` probes, as far as this system has it."""
    values = (
        ("TCP_KEEPIDLE", keepalive.idle),
        ("TCP_KEEPINTVL", keepalive.interval),
        ("TCP_KEEPCNT", keepalive.probes),
    )
    return tuple(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in values
        if hasattr(socket, name)
    )


def can_wait(keepalive: Keepalive) -> bool:
    """
    Whether `timing` may be set once a session lasts, and says the same as if it always had.

    The kernel counts the time for which nothing came before TCP_KEEPIDLE is set
    (tcp_sock_set_keepidle in net/ipv4/tcp.c).
    """
    return keepalive.idle >= 2 * LASTING


def set_options(sock: SocketType, options: Options) -> None:
    """Give the TCP socket `sock` the `options`; those that it accepts inherit them."""
    for level, name, value in options:
        sock.setsockopt(level, name, value)
