"""
The source addresses: addresses of this machine from which a pool connects to its servers.

Pure: takes text, returns addresses in turn.  Only connections to the same server from the same
source address compete for local ports.  So each further source address allows as many further
connections to one server as ``net.ipv4.ip_local_port_range`` has ports.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from evproxy.config.canonical import canonical_address

MOST = 1024
"""The most source addresses of one pool."""

MOST_KNOWN = 10_000
"""Of so many servers, a pool remembers whose turn it is; then it begins anew."""

TRIED = 8
"""The most source addresses that one attempt tries: the kernel examines every port of each."""


def addresses_in(text: str) -> tuple[str, ...]:
    """
    The IP address in `text`, or the host addresses of the range (CIDR) in `text`.

    As usual, the first and the last address of an IPv4 range are not host addresses (except in
    a /31).

    :raises ValueError: if `text` is neither; the message says why.
    """
    fault = source_fault(text)
    if fault is not None:
        raise ValueError(fault)
    if "/" not in text:
        return (canonical_address(text),)
    return tuple(map(str, ip_network(text).hosts()))


def source_fault(text: str) -> str | None:
    """Why `text` is neither an IP address nor a range; ``None`` if it is one of the two."""
    if "/" not in text:
        try:
            address = ip_address(text)
        except ValueError:
            return "it is not an IP address"
        if address.is_unspecified or address.is_multicast or "%" in text:
            return "it is not the address of one host" if "%" not in text else "it has a zone"
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
        return "it is not a range of host addresses"
    return None


def _strict(text: str) -> object:
    try:
        return ip_network(text)
    except ValueError:
        return None


class Sources:
    """
    The source addresses of a pool, used in turn: each server has a turn of its own.

    With one turn for all servers, it could go in step with the balancer: then each server would see
    the same few addresses again and again.

    :param source: addresses and ranges.
    :raises ValueError: if an item is neither; the message says why.
    """

    def __init__(self, source: Iterable[str]) -> None:
        addresses = dict.fromkeys(address for text in source for address in addresses_in(text))
        self._of_family = {
            ipv6: [address for address in addresses if (":" in address) is ipv6]
            for ipv6 in (False, True)
        }
        self.count = len(addresses)
        self._turns: dict[tuple[str, int], int] = {}

    def serves(self, host: str) -> bool:
        """Whether a source address is of the same family as the IP address `host`."""
        return bool(self._of_family[":" in host])

    def turn(self, host: str, port: int) -> list[str]:
        """
        The source addresses for a connect to `port` of the IP address `host`.  Try the last first.

        At most `TRIED` addresses; an empty list if none is of the family of `host`.
        """
        addresses = self._of_family[":" in host]
        if not addresses:
            return []
        turns, server = self._turns, (host, port)
        if len(turns) >= MOST_KNOWN and server not in turns:
            turns.clear()
        turns[server] = turn = turns.get(server, -1) + 1
        count = min(TRIED, len(addresses))
        return [addresses[(turn + step) % len(addresses)] for step in reversed(range(count))]
