"""
The options that every proxied TCP socket has: no delay, and keepalive.

An accepted socket inherits its options from the listening socket at no cost.  A socket that
connects needs a system call for each option.  So the options that have no effect until the first
keepalive probe is near are set only when the session is looked at for the first time
(`End.set_late_options`).

A socket that connects may also hold back its first acknowledgement, which then goes with the first
bytes (design note 0022).
"""

from __future__ import annotations

import socket
from contextlib import suppress
from socket import SocketType

from evproxy.settings import Keepalive

Options = tuple[tuple[int, int, int], ...]
"""Levels, names and values, in the form of setsockopt(2)."""

LASTING = 10.0
"""Seconds after which a session is looked at for the first time, and counts as lasting."""

NO_DELAY: Options = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)
"""The option that has an effect from the beginning."""

KEEPALIVE: Options = ((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),)
"""The option that makes the kernel probe an idle connection."""

AT_ONCE: Options = NO_DELAY + KEEPALIVE
"""Both; the system's times of probes apply."""

_QUICK_ACK = getattr(socket, "TCP_QUICKACK", 0)


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
    Whether `KEEPALIVE` and `timing` may be set once a session lasts, to the same effect.

    The kernel also counts the idle time before TCP_KEEPIDLE is set (tcp_sock_set_keepidle in
    net/ipv4/tcp.c).
    """
    return keepalive.idle >= 2 * LASTING


def set_options(sock: SocketType, options: Options) -> None:
    """Set `options` on the TCP socket `sock`; sockets that it accepts inherit them."""
    for level, name, value in options:
        sock.setsockopt(level, name, value)


def hold_ack(sock: SocketType) -> None:
    """
    Let the kernel send the last segment of the handshake, an acknowledgement, with bytes.

    The kernel then delays other acknowledgements too, once it has sent bytes within 40 ms after
    that: `acknowledge` ends the delay until bytes are sent again.
    """
    if _QUICK_ACK:
        sock.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 0)


def acknowledge(sock: SocketType) -> None:
    """Acknowledge what is not acknowledged yet, and be as prompt as usual until bytes are sent."""
    # If the connection is gone, nobody waits for it.
    with suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
