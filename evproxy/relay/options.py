"""The options that every proxied TCP socket has: no delay, and keepalive."""

from __future__ import annotations

import socket
from typing import Any

from evproxy.relay.queues import innermost
from evproxy.settings import Keepalive

Options = tuple[tuple[int, int, int], ...]
"""Levels, names and values, as setsockopt(2) wants them."""


def tcp_options(keepalive: Keepalive) -> Options:
    """TCP_NODELAY and what `keepalive` says, as far as this system has it."""
    timing = (
        ("TCP_KEEPIDLE", keepalive.idle),
        ("TCP_KEEPINTVL", keepalive.interval),
        ("TCP_KEEPCNT", keepalive.probes),
    )
    return (
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        *(
            (socket.IPPROTO_TCP, getattr(socket, name), value)
            for name, value in timing
            if hasattr(socket, name)
        ),
    )


def set_options(sock: socket.socket, options: Options) -> None:
    """Give the TCP socket `sock` the `options`; those that it accepts inherit them."""
    for level, name, value in options:
        sock.setsockopt(level, name, value)


def set_transport_options(transport: Any, options: Options) -> None:
    """`set_options` for the socket beneath any transport, if it is a TCP one."""
    get_handle = getattr(innermost(transport), "getHandle", None)
    handle = get_handle() if get_handle is not None else None
    if isinstance(handle, socket.socket) and handle.family != socket.AF_UNIX:
        set_options(handle, options)
