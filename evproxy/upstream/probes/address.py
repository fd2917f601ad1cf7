"""
The address that a check goes to, which may differ from the server's in its port.

Pure: text in, text out.
"""

from __future__ import annotations

from evproxy.config.addresses import host_and_port
from evproxy.errors import SettingsError
from evproxy.upstream.connect import parse_upstream
from evproxy.upstream.dialers import TCPAddress


def with_port(endpoint: str, port: int) -> str:
    """
    `endpoint` with `port` in the place of its own; as it is if `port` is 0.

    `SettingsError` if it is not a host and a port.
    """
    if not port:
        return endpoint
    address = parse_upstream(endpoint)
    if not isinstance(address, TCPAddress):
        raise SettingsError(f"cannot check port {port}: {endpoint} is not a host and a port")
    return host_and_port(address.host, port)


def host_of(endpoint: str) -> str:
    """The host name or IP address in `endpoint`, without a zone; empty if it has none."""
    address = parse_upstream(endpoint)
    return without_zone(address.host) if isinstance(address, TCPAddress) else ""


def without_zone(host: str) -> str:
    """
    `host` without the zone of an IPv6 address (``fe80::1%eth0``).

    A zone means something on this machine only, and is never sent (RFC 6874, 1; RFC 9844).
    """
    return host.partition("%")[0] if ":" in host else host


def host_header(endpoint: str) -> str:
    """The ``Host`` header (RFC 9110, 7.2) for `endpoint`: HOST:PORT, or ``localhost``."""
    address = parse_upstream(endpoint)
    if not isinstance(address, TCPAddress):
        return "localhost"
    return host_and_port(without_zone(address.host), address.port)
