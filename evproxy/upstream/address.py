"""
Parses the address of an upstream server, and makes the dialer for it.

``HOST:PORT``, ``[v6]:PORT``, ``tcp:HOST:PORT`` and ``unix:PATH`` are plain sockets: the
session's `PlainConnector` makes these connections.  Twisted connects every other client
endpoint description.
"""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger

from evproxy.config.addresses import server_fault, service_fault, upstream_fault
from evproxy.config.canonical import canonical_address, host_and_port
from evproxy.errors import SettingsError
from evproxy.interfaces import Dialer
from evproxy.model import UpstreamServer
from evproxy.policy.sources import Sources
from evproxy.upstream.dialers import (
    AddressDialer,
    EndpointDialer,
    NameDialer,
    TCPAddress,
    UNIXDialer,
    UNIXPath,
)
from evproxy.upstream.names import LookUps
from evproxy.upstream.reasons import description_fault
from evproxy.upstream.resolving import ResolvingReactor

_HOST_AND_PORT = re.compile(r"(?:tcp:)?(?:\[([0-9A-Fa-f:.]+(?:%[^\]]+)?)\]|([^:/=\\\[\]]+)):(\d+)")
_TCP6 = re.compile(r"tcp:((?:[0-9A-Fa-f]*\\:)+[0-9A-Fa-f.]*(?:%[^:=\\\]]+)?):(\d+)")
_UNIX = re.compile(r"unix:(?:path=)?([^:=\\]+)")
_LONGEST_PATH = 107
"""The limit of Linux for the path of a UNIX socket, in bytes (unix(7))."""
_log = Logger(namespace="evproxy")
_ENDPOINT_NAMES = {"tcp", "unix", "ssl", "tls"}


def parse_upstream(description: str) -> TCPAddress | UNIXPath | None:
    """
    The address in `description` if it is a plain socket; ``None`` for any other endpoint.

    :raises SettingsError: for an invalid host or port, and for a path with characters that
        are not printable.
    """
    match = _HOST_AND_PORT.fullmatch(description)
    if match is not None and match[2] not in _ENDPOINT_NAMES:
        host, port = match[1] or match[2], int(match[3])
    elif (match := _TCP6.fullmatch(description)) is not None:
        host, port = match[1].replace("\\:", ":"), int(match[2])
    elif (match := _UNIX.fullmatch(description)) is not None:
        if not match[1].isprintable():
            raise SettingsError(f"{description!r}: the path has a character that is not printable")
        if len(match[1].encode("utf-8", "surrogateescape")) > _LONGEST_PATH:
            raise SettingsError(
                f"{description!r}: the path of a UNIX socket has at most {_LONGEST_PATH} bytes"
            )
        return UNIXPath(match[1])
    else:
        return None
    if not _is_host(host):
        raise SettingsError(f"{description!r}: {host!r} is not a host")
    fault = server_fault(host)
    if fault is not None:
        raise SettingsError(f"{description!r}: {fault}")
    if not 1 <= port <= 65535:
        raise SettingsError(f"{description!r}: the port must be from 1 to 65535, got {port}")
    return TCPAddress(canonical_address(host), port)


def _is_host(host: str) -> bool:
    """Whether `host` is valid for a resolver: it raises unexpected errors for other text."""
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return host.isprintable() and " " not in host


def client_endpoint(reactor: Any, description: str) -> IStreamClientEndpoint:
    """
    The Twisted client endpoint for `description`, which may also be a plain socket.

    :raises SettingsError: if `description` is not valid.
    """
    address = parse_upstream(description)
    if isinstance(address, TCPAddress):
        host = address.host.replace(":", "\\:")
        description = f"tcp:{host}:{address.port}"
    fault = upstream_fault(description)
    if fault is not None:
        raise SettingsError(f"{description!r} is not an upstream server: {fault}")
    try:
        endpoint: IStreamClientEndpoint = clientFromString(reactor, description)
    except Exception as error:
        # The parser of an endpoint plugin may raise any exception.
        raise SettingsError(
            f"{description!r} is not an upstream server: "
            f"{service_fault(description) or description_fault(error)}"
        ) from None
    return endpoint


def check_upstream(reactor: Any, description: str) -> None:
    """
    Check that `description` can be used as an upstream server.

    :raises SettingsError: if it cannot; the message says why.
    """
    if parse_upstream(description) is None:
        client_endpoint(reactor, description)


def dialer_for(
    reactor: Any, names: LookUps, server: UpstreamServer, source: Sources | None = None
) -> Dialer:
    """
    Make the dialer for an upstream server.  A client endpoint object chooses its own source.

    :param reactor: the timers, and the connects that are not plain sockets.
    :param names: resolves host names; the pools of a service share it.
    :param source: the source addresses of plain sockets; ``None``: as the kernel chooses.
    :raises SettingsError: if the endpoint of `server` is not valid.
    """
    if server.client_endpoint is not None:
        return EndpointDialer(reactor, server.client_endpoint)
    description = server.endpoint
    address = parse_upstream(description)
    if isinstance(address, UNIXPath):
        return UNIXDialer(address.path)
    if address is None:
        if description.startswith("ssl:") and ":caCertsDir=" not in description:
            _log.warn(
                "{server}: ssl: verifies no certificate; the setting tls of a pool does",
                server=server.name,
            )
        resolving = ResolvingReactor(reactor, names)
        return EndpointDialer(reactor, client_endpoint(resolving, description), resolving.lacked)
    if isIPAddress(address.host) or isIPv6Address(address.host):
        return AddressDialer(address.host, address.port, source)
    return NameDialer(reactor, names, address.host, address.port, source)


def with_port(endpoint: str, port: int) -> str:
    """
    `endpoint` with its port replaced by `port`; unchanged if `port` is 0.

    :raises SettingsError: if `endpoint` is not a host and a port.
    """
    if not port:
        return endpoint
    address = parse_upstream(endpoint)
    if not isinstance(address, TCPAddress):
        raise SettingsError(f"cannot check port {port}: {endpoint} is not a host and a port")
    return host_and_port(address.host, port)


def host_of(endpoint: str) -> str:
    """The host name or IP address in `endpoint`, without a zone; empty if there is none."""
    address = parse_upstream(endpoint)
    return without_zone(address.host) if isinstance(address, TCPAddress) else ""


def without_zone(host: str) -> str:
    """
    `host` without the zone of an IPv6 address (``fe80::1%eth0``).

    A zone has a meaning only on this machine, and is never sent (RFC 6874, 1; RFC 9844).
    """
    return host.partition("%")[0] if ":" in host else host


def host_header(endpoint: str) -> str:
    """The ``Host`` header (RFC 9110, 7.2) for `endpoint`: HOST:PORT, or ``localhost``."""
    address = parse_upstream(endpoint)
    if not isinstance(address, TCPAddress):
        return "localhost"
    return host_and_port(without_zone(address.host), address.port)
