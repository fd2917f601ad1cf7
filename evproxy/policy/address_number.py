"""
IP addresses as numbers: all of IPv4 first, then all of IPv6.

A number serves the access lists and the table of clients, so the text of an address is read
once for a connection.  Reading takes 0.3 µs for IPv4 and 1 to 1.3 µs for IPv6, where
`ipaddress.ip_address` takes 1.9 and 4 to 6 µs.
"""

from __future__ import annotations

from ipaddress import IPv6Address

IPV6 = 1 << 128
"""The number of the IPv6 address ``::``; every IPv4 address has a number below 2**32."""

_OCTETS = {str(number): number for number in range(256)}
_MAPPED = 0xFFFF
_GROUPS = 8


def address_number(host: str) -> int | None:
    """
    The number of the IP address `host`; ``None`` if `host` is not an IP address.

    A mapped IPv4 address (RFC 4291, 2.5.5.2) has the number of the IPv4 address, and the zone
    of an IPv6 address does not count.  Accepts the spellings that `ipaddress.ip_address`
    accepts.
    """
    if ":" not in host:
        try:
            first, second, third, fourth = host.split(".")
            return (
                _OCTETS[first] << 24 | _OCTETS[second] << 16 | _OCTETS[third] << 8 | _OCTETS[fourth]
            )
        except (KeyError, ValueError):
            return None
    number = _of_groups(host)
    if number is None:
        number = _of_rare_spelling(host)
    if number is None:
        return None
    return number & 0xFFFFFFFF if number >> 32 == _MAPPED else number | IPV6


def _of_groups(host: str) -> int | None:
    """The IPv6 address of nothing but groups in hexadecimal; ``None`` for all other texts."""
    before, gap, after = host.partition("::")
    groups = before.split(":") if before else []
    if gap:
        behind = after.split(":") if after else []
        missing = _GROUPS - len(groups) - len(behind)
        if missing < 1:
            return None
        groups += ["0"] * missing + behind
    # `fromhex` ignores white space, and a group that is padded may be empty.
    if len(groups) != _GROUPS or "" in groups or " " in host:
        return None
    try:
        octets = bytes.fromhex(("%4s" * _GROUPS % tuple(groups)).replace(" ", "0"))
    except ValueError:
        return None
    return int.from_bytes(octets, "big") if len(octets) == 2 * _GROUPS else None


def _of_rare_spelling(host: str) -> int | None:
    """The IPv6 address with a zone or with an IPv4 address at its end."""
    try:
        return int(IPv6Address(host))
    except ValueError:
        return None
