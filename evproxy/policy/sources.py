"""
The addresses of this machine that the connections to a pool's servers are made from.

Pure: text in, addresses out, in turn.  A connection takes a local port for itself only
among those to the same server from the same address: so each address more is as many
connections to one server more as ``net.ipv4.ip_local_port_range`` has ports.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network

MOST = 1024
"""The most addresses of one pool."""

TRIED = 8
"""The most addresses that one attempt to connect tries; the kernel looks at every port of each."""


def addresses_in(text: str) -> tuple[str, ...]:
    """
    The address that `text` is, or those of the range (CIDR) that it is.

    As usual, the first address of an IPv4 range, and the last, are not hosts' (but for /31).

    :raises ValueError: if it is neither; the message says why.
    """
    fault = source_fault(text)
    if fault is not None:
        raise ValueError(fault)
    if "/" not in text:
        return (str(ip_address(text)),)
    return tuple(map(str, ip_network(text).hosts()))


def source_fault(text: str) -> str | None:
    """Why `text` is neither an address nor a range of them; ``None`` if it is."""
    if "/" not in text:
        try:
            address = ip_address(text)
        except ValueError:
            return "it is not an IP address"
        if address.is_unspecified or address.is_multicast or "%" in text:
            return "it is no address of one host" if "%" not in text else "it has a zone"
        return None
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return "it is not a range of IP addresses"
    if network.num_addresses > MOST:
        return f"it has more than {MOST} addresses"
    if network != _strict(text):
        return f"did you mean {network}?"
    if network.network_address.is_unspecified or network.is_multicast:
        return "they are no addresses of hosts"
    return None


def _strict(text: str) -> object:
    try:
        return ip_network(text)
    except ValueError:
        return None


class Sources:
    """
    Addresses to connect from, in turn.

    :param source: addresses and ranges.
    :raises ValueError: if one is neither; the message says why.
    """

    def __init__(self, source: Iterable[str]) -> None:
        every = dict.fromkeys(address for text in source for address in addresses_in(text))
        self._of_family = {
            ipv6: [address for address in every if (":" in address) is ipv6]
            for ipv6 in (False, True)
        }
        self.count = len(every)
        self._turn = 0

    def serves(self, host: str) -> bool:
        """Whether there is one to connect to the IP address `host` from."""
        return bool(self._of_family[":" in host])

    def turn(self, host: str) -> list[str]:
        """
        The addresses to connect to the IP address `host` from, the one to try first at the end.

        At most `TRIED`, and none if none is of the family of `host`.
        """
        addresses = self._of_family[":" in host]
        if not addresses:
            return []
        self._turn = turn = self._turn + 1
        count = min(TRIED, len(addresses))
        return [addresses[(turn + step) % len(addresses)] for step in reversed(range(count))]
