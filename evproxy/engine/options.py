"""
The options that every proxied TCP socket has: no delay, and keepalive.

An accepted socket inherits its options from the listening socket at no cost.  A socket that
connects needs a system call for each option.  So the options that have no effect until the first
keepalive probe is near are set only when the session is looked at for the first time
(`End.set_late_options`).
"""

from __future__ import annotations

import socket
from socket import SocketType

from evproxy.settings import Keepalive

Options = tuple[tuple[int, int, int], ...]
"""Levels, names and values, in the form of setsockopt(2)."""

LASTING = 10.0
"""Seconds after which a session is looked at for the first time, and counts as lasting."""

AT_ONCE: Options = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
)
"""The options that have an effect from the beginning."""


def timing(keepalive: Keepalive) -> Options:
    """Return the options for the times of `keepalive` that this system supports."""
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
    Whether `timing` may be set once a session lasts, with the same effect as from the beginning.

    The kernel also counts the idle time before TCP_KEEPIDLE is set (tcp_sock_set_keepidle in
    net/ipv4/tcp.c).
    """
    return keepalive.idle >= 2 * LASTING


def set_options(sock: SocketType, options: Options) -> None:
    """Set `options` on the TCP socket `sock`; sockets that it accepts inherit them."""
    for level, name, value in options:
        sock.setsockopt(level, name, value)
