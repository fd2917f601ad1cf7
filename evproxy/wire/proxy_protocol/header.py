"""
A PROXY header as a value: who is connected to whom, and what else is known of the connection.

The source is the client, and the destination is the address that the client connected to.

Source of this package: HAProxy's ``doc/proxy-protocol.txt``, called "the specification" here.
"""

from __future__ import annotations

import enum
import re
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from attrs import Attribute, field, frozen, validators

from evproxy.escape import escaped
from evproxy.wire.proxy_protocol.tlvs import Tlvs

UNIX_LENGTH = 108
"""The bytes of a UNIX address on the wire (the specification, 2.2)."""


class Transport(enum.Enum):
    """What the client's socket carries: a stream (TCP) or datagrams (UDP)."""

    STREAM = 1
    DATAGRAM = 2


_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")


def is_ipv4(text: str) -> bool:
    """Whether `text` is an IPv4 address: an expression takes a third of the time of `ipaddress`."""
    return _IPV4.fullmatch(text) is not None


def _canonical_host(host: str) -> str:
    if is_ipv4(host):
        return host
    try:
        address = IPv6Address(host.partition("%")[0])
    except ValueError:
        raise ValueError(f"{escaped(host)} is not an IP address") from None
    return str(address.ipv4_mapped or address)


_MAPPED = bytes(10) + b"\xff\xff"


@frozen(slots=True)
class InetAddress:
    """
    An IP address and a port.

    `host` takes the form of `canonical_address`: a mapped IPv4 address becomes the IPv4 address,
    as a header has no other way to write an IPv4 address beside an IPv6 address.  A zone is
    dropped, as it means nothing on another machine.

    :param host: an IPv4 or IPv6 address, without brackets.
    :param port: from 0 to 65535.
    :raises ValueError: if either is not.
    """

    host: str = field(converter=_canonical_host)
    port: int = field(validator=[validators.ge(0), validators.le(65535)])

    @property
    def is_ipv6(self) -> bool:
        """Whether the host is an IPv6 address."""
        return ":" in self.host

    @property
    def packed(self) -> bytes:
        """The 4 or 16 bytes of the host."""
        return IPv6Address(self.host).packed if self.is_ipv6 else IPv4Address(self.host).packed

    @property
    def packed_ipv6(self) -> bytes:
        """The 16 bytes of the host, which are those of the mapped address if it is IPv4."""
        return self.packed if self.is_ipv6 else _MAPPED + self.packed


def _socket_path(path: bytes) -> bytes:
    # An abstract address begins with NUL and may have more of them (unix(7)).
    return path.rstrip(b"\0") if path.startswith(b"\0") else path.partition(b"\0")[0]


@frozen(slots=True)
class UnixAddress:
    """
    The address of a UNIX socket.

    `path` is a path without NUL, an abstract address, which begins with NUL, or empty for a
    socket without a name.  NULs at its end are dropped, as the wire cannot tell them from padding.

    :param path: at most 108 bytes.
    :raises ValueError: if it is longer.
    """

    path: bytes = field(converter=_socket_path)

    @path.validator
    def _fits(self, _: Attribute[bytes], path: bytes) -> None:
        if len(path) > UNIX_LENGTH:
            raise ValueError(f"a UNIX address has at most {UNIX_LENGTH} bytes, not {len(path)}")


Address = InetAddress | UnixAddress


def _tlvs(given: Any) -> Tlvs:
    return given if isinstance(given, Tlvs) else Tlvs(given)


@frozen(slots=True)
class ProxyHeader:
    """
    A PROXY header.

    `source` and `destination` are of one kind, or both ``None``: then the addresses of the
    connection itself count.  That is so in these cases: ``UNKNOWN`` in version 1; in version 2
    the command ``LOCAL``, and an address family or a transport that is ``UNSPEC``.

    `transport` is `STREAM` where it says nothing, which is wherever there are no addresses.

    `local` is true if the sender connected for itself, as for a health check (the command
    ``LOCAL`` of version 2).  Version 1 cannot say so.

    `tlvs` are the additional facts of version 2, without checksum and padding.

    `checksum` is true if the header has a CRC32C (version 2).  A reader has verified it.

    :param version: 1 or 2.
    :raises ValueError: if it is another.
    """

    version: int = field(validator=validators.in_((1, 2)))
    source: Address | None = None
    destination: Address | None = None
    transport: Transport = Transport.STREAM
    local: bool = False
    tlvs: Tlvs = field(default=Tlvs(), converter=_tlvs)
    checksum: bool = False

    def inet_pair(self) -> tuple[InetAddress, InetAddress] | None:
        """The source and the destination, if both are IP addresses."""
        source, destination = self.source, self.destination
        if isinstance(source, InetAddress) and isinstance(destination, InetAddress):
            return source, destination
        return None

    def unix_pair(self) -> tuple[UnixAddress, UnixAddress] | None:
        """The source and the destination, if both are UNIX addresses."""
        source, destination = self.source, self.destination
        if isinstance(source, UnixAddress) and isinstance(destination, UnixAddress):
            return source, destination
        return None
