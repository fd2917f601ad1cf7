"""Where plain sockets connect to: made once for each server, and not for each session."""

from __future__ import annotations

import socket
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IAddress

from evproxy.sockets.transport import socket_address

EPHEMERAL = 32768
"""Ports from here on may be given to the side that connects (Linux's default range)."""


@frozen
class Destination:
    """
    Where sockets connect to, and what follows from that.

    `host`, with its zone if it has one, and `port` are as they were given; for a UNIX socket
    `host` is the path.  `name` is the address as the socket module has it, `address` as Twisted
    has it.
    `near`: on this machine.  `ephemeral`: the kernel may give the same port to the socket
    that connects, which can so connect to itself (RFC 9293, 3.5).
    """

    host: str
    port: int
    family: int
    name: Any
    address: IAddress
    near: bool
    ephemeral: bool


def tcp_destination(host: str, port: int) -> Destination:
    """The destination at the IP address `host`; a zone in it is looked up now."""
    name: Any = (host, port)
    family = socket.AF_INET
    if ":" in host:
        address, _, zone = host.partition("%")
        name = (address, port, 0, _scope(zone))
        family = socket.AF_INET6
    return Destination(
        host,
        port,
        family,
        name,
        socket_address(name),
        near=host.startswith(("127.", "::1")),
        ephemeral=port >= EPHEMERAL,
    )


def unix_destination(path: str) -> Destination:
    """The destination at the UNIX socket at `path`."""
    return Destination(
        path, 0, socket.AF_UNIX, path, socket_address(path), near=False, ephemeral=False
    )


def _scope(zone: str) -> int:
    """The number of the zone of an IPv6 address (RFC 4007); 0 if there is none, or no such one."""
    try:
        return int(zone) if zone.isdecimal() else socket.if_nametoindex(zone) if zone else 0
    except OSError:
        return 0
