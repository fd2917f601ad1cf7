"""Where plain sockets connect to: a `Destination` is made for each server, not each session."""

from __future__ import annotations

import socket
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IAddress

from evproxy.sockets.transport import socket_address

LOCAL_PORTS = "/proc/sys/net/ipv4/ip_local_port_range"
"""The first and the last port that the kernel gives to sockets that connect (ip(7))."""

FIRST_LOCAL_PORT = 32768
"""The first of these ports by default, for systems without that file."""


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
    Where sockets connect to.

    `host`, with its zone if it has one, and `port` are as given; for a UNIX socket, `host` is the
    path.  `name` is the address in the form of the socket module, `address` in Twisted's form.
    `near`: the address is a loopback address.
    """

    host: str
    port: int
    family: int
    name: Any
    address: IAddress
    near: bool


def tcp_destination(host: str, port: int) -> Destination:
    """Return the destination at the IP address `host`; a zone in `host` is looked up now."""
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
    """Return the destination at the UNIX socket at `path`."""
    return Destination(path, 0, socket.AF_UNIX, path, socket_address(path), near=False)


def _scope(zone: str) -> int:
    """The number of the zone of an IPv6 address (RFC 4007); 0 without a zone, or if unknown."""
    try:
        return int(zone) if zone.isdecimal() else socket.if_nametoindex(zone) if zone else 0
    except OSError:
        return 0
