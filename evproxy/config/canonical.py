"""Addresses in their canonical form: each client and each server has one name."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address

from evproxy.escape import printable


def is_address(text: str) -> bool:
    """Whether `text` is an IPv4 or IPv6 address, without brackets."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


MAPPED = "::ffff:"
"""The prefix of an IPv4 address that is mapped into IPv6 (RFC 4291, 2.5.5.2)."""


def canonical_address(host: str) -> str:
    """
    The IP address `host` in its canonical form, without brackets; any other host unchanged.

    A mapped IPv4 address becomes the IPv4 address.  IPv6 is as in RFC 5952, with its zone if
    the address has one (``fe80::1%eth0``).
    """
    try:
        address = ip_address(host)
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def host_and_port(host: str, port: int | str) -> str:
    """``HOST:PORT``, with brackets around an IPv6 address (RFC 3986, 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


_ANY_HOST = r"(?:[^:=\\\[\]]|\\:)+"
_BRACKETED = re.compile(r"(?:tcp:)?\[([^\[\]]+)\]:0*([0-9]+)")
_WITHOUT_BRACKETS = re.compile(r"([^:=\\\[\]]+):0*([0-9]+)")
_IN_ARGUMENTS = re.compile(rf"tcp:(?:host=)?({_ANY_HOST}):(?:port=)?0*([0-9]+)")
_PORT_FIRST = re.compile(rf"tcp:port=0*([0-9]+):(?:host=)?({_ANY_HOST})")


def server_name(endpoint: str) -> str:
    """
    The name of the server at `endpoint` in logs and metrics, the same for every spelling.

    ``HOST:PORT`` or ``[v6]:PORT`` if `endpoint` says no more than that; any other endpoint
    description is its own name.
    """
    if found := _WITHOUT_BRACKETS.fullmatch(endpoint):
        host, port = found.groups()
        return printable(f"{host}:{port}")
    if found := _BRACKETED.fullmatch(endpoint) or _IN_ARGUMENTS.fullmatch(endpoint):
        host, port = found.groups()
    elif found := _PORT_FIRST.fullmatch(endpoint):
        port, host = found.groups()
    else:
        return printable(endpoint.removeprefix("tcp:"))
    host = canonical_address(host.replace("\\:", ":"))
    return printable(host_and_port(host, port))
