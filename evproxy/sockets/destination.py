"""Where plain sockets connect to: made once for each server, and not for each session."""

from __future__ import annotations

import socket
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IAddress

from evproxy.sockets.transport import socket_address

LOCAL_PORTS = "/proc/sys/net/ipv4/ip_local_port_range"
"""The first and the last port that the kernel gives to sockets that connect (ip(7))."""

FIRST_LOCAL_PORT = 32768
"""The first of these ports by default; used where the kernel does not tell."""


def first_local_port() -> int:
    """The first port that the kernel gives to sockets that connect."""
    try:
        with open(LOCAL_PORTS) as file:
            return int(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        return FIRST_LOCAL_PORT


@frozen
class Destination:
    """
    Where sockets connect to, and what follows from that.

    `host`, with its zone if it has one, and `port` are as they were given; for a UNIX socket
    `host` is the path.  `name` is the address as the socket module has it, `address` as Twisted
    has it.
    `near`: on this machine.
    """

    host: str
    port: int
    family: int
    name: Any
    address: IAddress
    near: bool


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
    )


def unix_destination(path: str) -> Destination:
    """The destination at the UNIX socket at `path`."""
    return Destination(path, 0, socket.AF_UNIX, path, socket_address(path), near=False)


def _scope(zone: str) -> int:
    """The number of the zone of an IPv6 address (RFC 4007); 0 if there is none, or no such one."""
    try:
        return int(zone) if zone.isdecimal() else socket.if_nametoindex(zone) if zone else 0
    except OSError:
        return 0
